/** Every suite of the allocator, with its descriptors in emulated memory: layout `memdesc`. */
import './use-memdesc.ts';
import '../iommu-pages.test.ts';
