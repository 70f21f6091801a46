/** Every suite of the allocator, with its descriptors in emulated memory: layout `overlay`. */
import './use-overlay.ts';
import '../iommu-pages.test.ts';
