/** Every suite of the allocator, with its descriptors in emulated memory: layout `memdesc`. */
import './use-memdesc.ts';
import '../iommu-pages.test.ts';
import '../context.test.ts';
import '../incoherent.test.ts';
import '../preserve.test.ts';
import '../failing-source.test.ts';
import '../model.test.ts';
