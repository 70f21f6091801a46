/** The counters that Linux keeps of table pages, per node and per memory control group. */

/** Counters of one node or of all, by the names of `/proc/vmstat`; unit: CPU pages. */
export interface VmStat {
  readonly nr_sec_page_table_pages: number;
  readonly nr_iommu_pages: number;
}

/**
 * `NR_IOMMU_PAGES` and `NR_SECONDARY_PAGETABLE`: CPU pages, not allocations (with 64 KiB pages, one stands for 64 KiB).
 * What is charged to a node and a group when a block is made is taken off the same ones when it is freed. Every page of this
 * allocator counts in both, so one number a node is kept (in Linux KVM's tables count in the second as well).
 */
export class Accounting {
  readonly #pageBytes: number;
  readonly #node: number[] = [];
  readonly #memcg: number[] = [];
  #total = 0;
  #peak = 0;

  /** @param pageBytes size of a CPU page. */
  constructor(pageBytes = 4096) {
    this.#pageBytes = pageBytes;
  }

  /** `pages` more (or, negative, fewer) on `node` for group `memcg` (0: none). */
  charge(node: number, memcg: number, pages: number): void {
    this.#node[node] = (this.#node[node] ?? 0) + pages;
    this.#total += pages;
    if (this.#total > this.#peak) this.#peak = this.#total;
    if (memcg !== 0) this.#memcg[memcg] = (this.#memcg[memcg] ?? 0) + pages;
  }

  /** Pages of one node, or of all. */
  pages(node?: number): number {
    return node === undefined ? this.#total : (this.#node[node] ?? 0);
  }

  /** Pages charged to a group. */
  memcgPages(memcg: number): number {
    return this.#memcg[memcg] ?? 0;
  }

  /** Highest total so far. */
  get peak(): number {
    return this.#peak;
  }

  /** `/proc/vmstat`, or `/sys/devices/system/node/nodeN/vmstat`, as an object. */
  vmstat(node?: number): VmStat {
    const pages = this.pages(node);
    return { nr_sec_page_table_pages: pages, nr_iommu_pages: pages };
  }

  /** The lines of that file that count table pages. */
  vmstatText(node?: number): string {
    const lines = Object.entries(this.vmstat(node)).map(([name, pages]) => `${name} ${pages}`);
    return `${lines.join('\n')}\n`;
  }

  /** `SecPageTables` of `/proc/meminfo`, or of a node's, in kB. */
  secPageTablesKb(node?: number): number {
    return this.pages(node) * (this.#pageBytes / 1024);
  }

  /** The line of `/proc/meminfo`, or of `/sys/devices/system/node/nodeN/meminfo`, that counts table pages. */
  meminfoText(node?: number): string {
    const kb = `${this.secPageTablesKb(node)}`.padStart(8);
    return node === undefined ? `SecPageTables:  ${kb} kB\n` : `Node ${node} SecPageTables:  ${kb} kB\n`;
  }

  /** Nodes that pages were ever charged to, ascending. */
  get nodes(): number[] {
    return this.#node.flatMap((pages, node) => (pages === undefined ? [] : [node]));
  }

  /** Groups that pages were ever charged to, ascending. */
  get memcgs(): number[] {
    return this.#memcg.flatMap((pages, memcg) => (pages === undefined ? [] : [memcg]));
  }

  /** `sec_pagetables` of a group's `memory.stat`, in bytes. */
  secPagetablesBytes(memcg: number): number {
    return this.memcgPages(memcg) * this.#pageBytes;
  }
}
