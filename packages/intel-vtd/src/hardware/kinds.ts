/** What a cached context says: a page table of one kind, or no translation. */
export const KIND = { SECOND_STAGE: 0, PASS_THROUGH: 1, FIRST_STAGE: 2 } as const;
