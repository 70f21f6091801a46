/** The allocator under test: the suites that use it run over every layout of the descriptors (test/layouts). */
import { IommuPages } from '../src/index.ts';
import type { IommuPagesOptions, PageSource, PhysicalMemory } from '../src/index.ts';

let layout: NonNullable<IommuPagesOptions['layout']> = 'host';

/** Makes {@link makePages} use a layout from now on. */
export const useLayout = (name: typeof layout): void => {
  layout = name;
};

/** RAM for descriptors lies where no test has any. */
const FAR = 1n << 50n;
const SIZE = 1n << 28n;

/** An allocator over `source`, its descriptors in RAM of their own, so that the source has as many pages with every layout. */
export const makePages = (memory: PhysicalMemory, source: PageSource, options: IommuPagesOptions = {}): IommuPages => {
  if (layout === 'host') return new IommuPages(memory, source, options);
  let base = FAR;
  while (memory.rangeOf(Number(base >> 12n)) !== null) base += SIZE;
  memory.addRam({ base, size: SIZE });
  const pages = new IommuPages(memory, source, { layout, descriptorRange: { base, size: SIZE }, ...options });
  if (pages.descriptorUsage.layout !== layout) throw new Error(`the layout ${layout} was asked for`);
  return pages;
};
