/** Emulated devices at work: DMA through the emulated IOMMU, every byte compared, every refusal's record decoded. */
import { hex, hi32, lo32 } from '@iommu-ts/bits';
import type { Random } from '@iommu-ts/conformance';
import { ACCESS, DMA_BUS_ERROR, NO_PASID, TRANSLATE_OK } from '@iommu-ts/iommu-core';
import type { DriverHarness, FaultEvent, IommuSystem } from '@iommu-ts/iommu-core';
import { PROT } from '@iommu-ts/page-table';
import type { DomainBook, Piece } from './bookkeeping.ts';
import { X86_MSI, covers } from './layout.ts';
import type { Doorbells, Layout, Span } from './layout.ts';
import { hasX86Window } from './placement.ts';

/** The kinds of refusal that a replay provokes. */
type Kind = 'notConfigured' | 'notPresent' | 'permission';

/** How a DMA ended. */
interface Outcome {
  readonly ok: boolean;
  readonly busError: boolean;
  /** The fault code. */
  readonly code: number;
}

/** Wrong results that are told in words. */
const MAX_TOLD = 20;
/** Bytes of one DMA at most. */
const MAX_DMA = 256;

export class Checker {
  readonly #harness: DriverHarness;
  readonly #system: IommuSystem;
  readonly #random: Random;
  readonly #doorbells: Doorbells;
  readonly #ram: readonly Span[];
  readonly #mmio: readonly Span[];
  /** The unit keeps DMA out of the x86 interrupt window, or makes interrupts of it. */
  readonly #window: boolean;
  /** DMA transfers compared, and their bytes. */
  dmaChecked = 0;
  bytesChecked = 0;
  /** Refusals that had to come, and those that came with the right record. */
  faultsProvoked = 0;
  faultsCaught = 0;
  /** Bytes or faults that were wrong. */
  wrong = 0;
  readonly told: string[] = [];
  /** Line of the event that is being played, for messages. */
  line = 0;

  constructor(harness: DriverHarness, system: IommuSystem, random: Random, layout: Layout) {
    this.#harness = harness;
    this.#system = system;
    this.#random = random;
    this.#doorbells = layout.doorbells;
    this.#ram = layout.ram;
    this.#mmio = layout.mmio;
    this.#window = hasX86Window(system.driver.reservedRegions());
  }

  /** Reads and writes at both ends of a mapping and at `inside` random places, by an attached requester. */
  mapped(piece: Piece, requester: number, inside: number): void {
    const start = piece.t0 + piece.shift;
    const size = Number(piece.t1 - piece.t0);
    const edge = Math.min(size, 64);
    this.#at(piece, requester, start, edge);
    this.#at(piece, requester, piece.t1 + piece.shift - BigInt(edge), edge);
    for (let i = 0; i < inside; i++) {
      const length = 1 + this.#random.below(Math.min(size, MAX_DMA));
      this.#at(piece, requester, start + BigInt(this.#random.below(size - length + 1)), length);
    }
  }

  /** One place of a mapping: what it allows must move the right bytes, what it does not must fault. */
  #at(piece: Piece, requester: number, iova: bigint, length: number): void {
    const { info } = this.#system.driver;
    const write = (piece.prot & PROT.WRITE) !== 0;
    const read = (piece.prot & PROT.READ) !== 0 || (write && !info.writeOnly);
    const pa = iova + piece.paShift;
    if (this.#window && pa < X86_MSI.end && pa + BigInt(length) > X86_MSI.start) return;
    if (covers(this.#mmio, pa, pa + 1n)) {
      if (write) this.#ring(requester, iova, pa, piece.prot);
      if (read) this.#load(requester, iova, pa, piece.prot);
      return;
    }
    if (!covers(this.#ram, pa, pa + BigInt(length))) return;
    if (read) this.#read(requester, iova, pa, length, piece.prot);
    else this.refused(requester, iova, 'read', 'permission', null);
    if (write) this.#write(requester, iova, pa, length, piece.prot);
    else this.refused(requester, iova, 'write', 'permission', pa);
  }

  /** A DMA by a device that is privileged where the mapping (IOMMU_PRIV) is for such devices alone. */
  #transfer(requester: number, iova: bigint, access: number, bytes: Uint8Array, prot: number): Outcome {
    const { bus } = this.#system;
    const all = access | ((prot & PROT.PRIV) === 0 ? 0 : ACCESS.PRIV);
    const status = bus.transfer(requester, NO_PASID, hi32(iova), lo32(iova), all, bytes, 0, bytes.length);
    return { ok: status === TRANSLATE_OK, busError: status === DMA_BUS_ERROR, code: status };
  }

  #read(requester: number, iova: bigint, pa: bigint, length: number, prot: number): void {
    const bytes = this.#random.bytes(length);
    this.#system.memory.writeBytes(pa, bytes);
    const data = new Uint8Array(length);
    const result = this.#transfer(requester, iova, ACCESS.READ, data, prot);
    this.#judge(result, bytes, data, `read of ${length} bytes`, requester, iova, pa);
  }

  #write(requester: number, iova: bigint, pa: bigint, length: number, prot: number): void {
    const bytes = this.#random.bytes(length);
    const result = this.#transfer(requester, iova, ACCESS.WRITE, bytes, prot);
    this.#judge(
      result,
      bytes,
      this.#system.memory.readBytes(pa, length),
      `write of ${length} bytes`,
      requester,
      iova,
      pa,
    );
  }

  /** A store to a doorbell must arrive as it was sent. */
  #ring(requester: number, iova: bigint, pa: bigint, prot: number): void {
    const at = iova - (iova % 4n);
    const value = this.#random.next();
    const bytes = Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
    const before = this.#doorbells.count;
    const result = this.#transfer(requester, at, ACCESS.WRITE, bytes, prot);
    this.dmaChecked++;
    this.bytesChecked += 4;
    const { last, count } = this.#doorbells;
    const arrived =
      count === before + 1 && last!.address === pa - (iova - at) && last!.size === 4 && last!.value === BigInt(value);
    if (!result.ok || !arrived)
      this.#tell(`store to the doorbell at ${hex(pa)} through ${hex(at)} by ${hex(requester)} was lost`);
  }

  #load(requester: number, iova: bigint, pa: bigint, prot: number): void {
    const at = iova - (iova % 4n);
    const value = Number(this.#doorbells.read(pa - (iova - at), 4));
    const wanted = Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
    const data = new Uint8Array(4);
    const result = this.#transfer(requester, at, ACCESS.READ, data, prot);
    this.#judge(result, wanted, data, 'read of 4 bytes', requester, at, pa);
  }

  #judge(
    result: Outcome,
    wanted: Uint8Array,
    got: Uint8Array,
    what: string,
    requester: number,
    iova: bigint,
    pa: bigint,
  ): void {
    this.dmaChecked++;
    this.bytesChecked += wanted.length;
    if (result.ok && wanted.every((byte, i) => byte === got[i])) return;
    const why = result.ok
      ? `other bytes than at pa ${hex(pa)}`
      : result.busError
        ? 'a bus error'
        : `fault ${hex(result.code)}`;
    this.#tell(`${what} at ${hex(iova)} by ${hex(requester)} gave ${why}`);
    this.#system.driver.handleFaults();
  }

  /**
   * An access that must be refused, leave the right record, and change nothing.
   * @param pa where the bytes lay that a write must not change, or null
   */
  refused(requester: number, iova: bigint, access: 'read' | 'write', kind: Kind, pa: bigint | null): void {
    const { bus, driver, memory } = this.#system;
    const target = pa !== null && covers(this.#ram, pa, pa + 4n) ? pa : null;
    const before = target === null ? null : memory.readBytes(target, 4);
    const device = bus.device(requester);
    this.faultsProvoked++;
    const length = (iova & 0xfffn) > 0xffcn ? 1 : 4;
    const result =
      access === 'read' ? device.read(iova, length) : device.write(iova, this.#random.bytes(4).subarray(0, length));
    const events = driver.handleFaults();
    const what = `${access} at ${hex(iova)} by ${hex(requester)}`;
    if (result.ok || result.bytes > 0) {
      this.#tell(`${what} went through, expected a fault (${kind})`);
      return;
    }
    if (target !== null && memory.readBytes(target, 4).some((byte, i) => byte !== before![i])) {
      this.#tell(`${what} was refused, but memory changed`);
      return;
    }
    const codes = this.#harness.faultCodes[kind];
    // An architecture that records nothing of this kind is asked for the refusal alone.
    if (codes.length === 0 || events.some((event) => matches(event, codes, requester, iova, access))) {
      this.faultsCaught++;
      return;
    }
    const found = events.length === 0 ? 'no record' : `"${events.at(-1)!.text}"`;
    this.#tell(`${what} was refused, expected a record of it (${kind}), found ${found}`);
  }

  /** A requester of another domain gets that domain's answer at the same IOVA. */
  otherDomain(book: DomainBook, requester: number, iova: bigint): void {
    if (book.waits(iova)) return;
    const piece = book.holder(iova);
    if (piece === null) {
      this.refused(requester, iova, 'read', 'notPresent', null);
      return;
    }
    const write = (piece.prot & PROT.WRITE) !== 0;
    const read = (piece.prot & PROT.READ) !== 0 || (write && !this.#system.driver.info.writeOnly);
    const pa = iova + piece.paShift;
    if (read && covers(this.#ram, pa, pa + 1n)) this.#read(requester, iova, pa, 1, piece.prot);
  }

  #tell(text: string): void {
    this.wrong++;
    if (this.told.length < MAX_TOLD) this.told.push(`line ${this.line}: ${text}`);
  }

  /** Something else that must not happen: an unmap that returns other bytes than were mapped. */
  broken(text: string): void {
    this.#tell(text);
  }
}

const matches = (
  event: FaultEvent,
  codes: readonly number[],
  requester: number,
  iova: bigint,
  access: 'read' | 'write',
): boolean =>
  codes.includes(event.code) &&
  (event.requester === requester || event.requester === -1) &&
  (event.access === access || event.access === 'unknown') &&
  // A record of a device that is not configured may leave the address out.
  (event.iova === 0n || (hi32(event.iova) === hi32(iova) && lo32(event.iova) >>> 12 === lo32(iova) >>> 12));
