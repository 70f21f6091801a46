/** The operations that a driver really carried out, kept as words: the timed rounds play exactly these. */
import { hi32, lo32 } from '@iommu-ts/bits';

export const OP = { DOMAIN: 0, ATTACH: 1, MAP: 2, UNMAP: 3 } as const;

export class OpLog {
  readonly kind: number[] = [];
  /** Index of the domain. */
  readonly domainOf: number[] = [];
  readonly iovaHi: number[] = [];
  readonly iovaLo: number[] = [];
  readonly paHi: number[] = [];
  readonly paLo: number[] = [];
  /** Bytes; the requester of an attach. */
  readonly size: number[] = [];
  readonly prot: number[] = [];

  get length(): number {
    return this.kind.length;
  }

  #push(kind: number, domain: number, iova: bigint, pa: bigint, size: number, prot: number): void {
    this.kind.push(kind);
    this.domainOf.push(domain);
    this.iovaHi.push(hi32(iova) | 0);
    this.iovaLo.push(lo32(iova) | 0);
    this.paHi.push(hi32(pa) | 0);
    this.paLo.push(lo32(pa) | 0);
    this.size.push(size);
    this.prot.push(prot);
  }

  domain(): void {
    this.#push(OP.DOMAIN, 0, 0n, 0n, 0, 0);
  }
  attach(domain: number, requester: number): void {
    this.#push(OP.ATTACH, domain, 0n, 0n, requester, 0);
  }
  map(domain: number, iova: bigint, pa: bigint, size: number, prot: number): void {
    this.#push(OP.MAP, domain, iova, pa, size, prot);
  }
  unmap(domain: number, iova: bigint, size: number): void {
    this.#push(OP.UNMAP, domain, iova, 0n, size, 0);
  }
}
