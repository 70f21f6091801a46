/** Formats as data: one hidden class, rules evaluated to words, and misuse that is told at once. */
import { setFlagsFromString } from 'node:v8';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, it } from 'vitest';
import {
  PageTable,
  X86_64_4LEVEL,
  X86_64_5LEVEL,
  X86_64_AMD_4LEVEL,
  X86_64_AMD_5LEVEL,
  defineFormat,
} from '../src/index.ts';
import { leafAttributes, tableAttributes } from '../src/format.ts';
import { CONFIGS, FOLDED, PLAIN, ROOTS, SHIFTED } from './local-formats.ts';

setFlagsFromString('--allow-natives-syntax');
const haveSameMap = new Function('a', 'b', 'return %HaveSameMap(a, b)') as (a: object, b: object) => boolean;
const hasFastProperties = new Function('a', 'return %HasFastProperties(a)') as (a: object) => boolean;

const fresh = (kind: 'sparse' | 'flat' = 'sparse'): IommuPages => {
  const memory = new PhysicalMemory([{ base: 0x1_0000_0000n, size: 1n << 24n, kind }]);
  return new IommuPages(memory, new BuddySource(memory));
};

describe('one hidden class', () => {
  it('all formats', () => {
    const formats = [PLAIN, SHIFTED, FOLDED, ROOTS, X86_64_4LEVEL, X86_64_5LEVEL, X86_64_AMD_4LEVEL, X86_64_AMD_5LEVEL];
    for (const format of formats) {
      expect(haveSameMap(format, formats[0]!), format.name).toBe(true);
      expect(hasFastProperties(format)).toBe(true);
    }
  });

  it('all tables, fresh and used', () => {
    const tables = CONFIGS.flatMap(([, config]) => [
      new PageTable(fresh(), config),
      new PageTable(fresh('flat'), config),
    ]);
    for (const table of tables) {
      const bytes = table.granuleBytes;
      expect(table.map(0, 0x1000_0000, 0, 0x1000_0000, bytes, 3)).toBe(0);
      expect(table.iovaToPhys(0, 0x1000_0000)).toBe(true);
    }
    // V8 moves an object to the settled layout of its class when it is next touched; a new one has it at once.
    const again = CONFIGS.map(([, config]) => new PageTable(fresh('flat'), config));
    for (const table of again) {
      expect(haveSameMap(table, again[0]!), table.format.name).toBe(true);
      expect(hasFastProperties(table), table.format.name).toBe(true);
    }
  });

  it('masks are int32', () => {
    for (const format of [PLAIN, SHIFTED, FOLDED, ROOTS]) {
      for (const mask of [format.oaMaskLo, format.oaMaskHi, format.presentLo, format.presentHi, format.typeMask]) {
        expect(mask).toBe(mask | 0);
      }
    }
  });
});

describe('rules', () => {
  it('are or-ed by protection and level', () => {
    const words = leafAttributes(PLAIN, {});
    expect([...words.subarray(1 * 4, 1 * 4 + 4)]).toEqual([0x1, 0, 0x81, 0]);
    expect([...words.subarray(2 * 4, 2 * 4 + 4)]).toEqual([0x3, 0, 0x83, 0]);
    expect([...leafAttributes(FOLDED, {}).subarray(2 * 4, 2 * 4 + 4)]).toEqual([3, 1 << 22, 1, 1 << 22]);
    expect(tableAttributes(FOLDED, {})).toEqual([3, 0]);
  });

  it('a rule that names no field is refused', () => {
    expect(() => defineFormat({ ...PLAIN.definition, attributes: [{ field: 'NO', value: 1 }] })).toThrow(
      expect.objectContaining({ code: 'EINVAL' }) as Error,
    );
  });
});

describe('a configuration that the format does not have is refused', () => {
  it.each([
    ['ias too wide', { format: PLAIN, ias: 65, oas: 52 }],
    ['oas too wide', { format: PLAIN, ias: 48, oas: 53 }],
    ['top too high', { format: PLAIN, ias: 48, oas: 52, topLevel: 4 }],
    ['too many start tables', { format: ROOTS, ias: 40, oas: 36 }],
    ['a page size it has not', { format: PLAIN, ias: 48, oas: 52, pageSizes: 0x2000n }],
    ['no page size', { format: PLAIN, ias: 48, oas: 52, pageSizes: 0n }],
  ])('%s', (_name, config) => {
    const pages = fresh();
    expect(() => new PageTable(pages, config)).toThrow(expect.objectContaining({ code: 'EINVAL' }) as Error);
    expect(pages.nrSecPageTablePages).toBe(0);
  });

  it('no page for the top: ENOMEM, nothing kept', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 0x3000n }]);
    const pages = new IommuPages(memory, new BuddySource(memory));
    expect(() => new PageTable(pages, { format: ROOTS, ias: 32, oas: 36 })).toThrow(
      expect.objectContaining({ code: 'ENOMEM' }) as Error,
    );
    expect(pages.nrSecPageTablePages).toBe(0);
  });
});
