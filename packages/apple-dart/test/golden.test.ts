/** Tables built by Linux's own code: every golden file of this vendor must come out byte for byte. */
import { readFileSync, readdirSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { playGolden } from '@iommu-ts/conformance';
import { describe, expect, it } from 'vitest';
import { goldenConfig } from '../src/formats.ts';

const folder = new URL('../../conformance/fixtures/golden/', import.meta.url);
const prefixes = 'dart'.split(',');
const files = readdirSync(folder).filter((name) => prefixes.some((prefix) => name.startsWith(prefix)));

describe('golden tables', () => {
  it('are all there', () => expect(files.length).toBe(16));

  it.each(files)('%s', (name) => {
    const json: unknown = JSON.parse(gunzipSync(readFileSync(new URL(name, folder))).toString('utf8'));
    for (const kind of ['sparse', 'flat'] as const) {
      const result = playGolden(json, goldenConfig, name, kind);
      expect(result.mismatches, `${kind} memory`).toEqual([]);
      expect(result.ok).toBe(true);
    }
  });
});
