import { IommuError } from '@iommu-ts/bits';

/** The code of the IommuError that `run` throws. */
export const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof IommuError ? error.code : String(error);
  }
  return 'nothing thrown';
};
