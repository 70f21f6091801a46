import { project } from '../../scripts/vitest-preset.ts';

export default project('riscv');
