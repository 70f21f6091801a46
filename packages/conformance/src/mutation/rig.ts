/** A system with all checks on, the adversarial device, and at most one bug. */
import type { CheckReport, Checks, PagingDomain } from '@iommu-ts/iommu-core';
import { Rig } from '../suite/driver/rig.ts';
import { FaultyPort } from './faulty-port.ts';
import type { Mutation, MutationTarget } from './types.ts';

export class MutationRig extends Rig {
  readonly checks: Checks;
  readonly port: FaultyPort;
  readonly #domains: PagingDomain[] = [];
  readonly #attached = new Set<number>();

  private constructor(target: MutationTarget, mutation: Mutation | null, base: Mutation) {
    let port: FaultyPort | null = null;
    super(base.harness ?? target.harness, {
      ...base.options,
      checks: true,
      iotlb: { mode: 'retain' },
      port: (mmio, memory) => {
        port = new FaultyPort(mmio, memory, target, mutation?.port ?? {});
        return port;
      },
    });
    if (this.system.checks === null) throw new Error(`${target.harness.name}: a system without checks`);
    this.checks = this.system.checks;
    this.port = port!;
    this.#follow(mutation);
    mutation?.system?.(this);
    this.port.armed = true;
  }

  /** A system with the bug in it. */
  static with(target: MutationTarget, mutation: Mutation): MutationRig {
    return new MutationRig(target, mutation, mutation);
  }

  /** The same system without the bug. */
  static without(target: MutationTarget, mutation: Mutation): MutationRig {
    return new MutationRig(target, null, mutation);
  }

  /** A DMA read and a DMA write, whatever comes of them. */
  dma(requester: number, ...iovas: readonly bigint[]): void {
    const device = this.system.bus.device(requester);
    for (const iova of iovas) {
      device.read(iova, 8);
      device.write(iova, this.random.bytes(8));
    }
  }

  /** The owner of a buffer is done with it: unmapped, and then its pages go back to the operating system. */
  giveBack(domain: PagingDomain, iova: bigint, size: bigint, pa: bigint): void {
    domain.unmap(iova, size);
    this.checks.dataFreed(pa, Number(size));
  }

  /** Everything that the scenario has left is taken apart, in order. */
  tearDown(): void {
    for (const requester of this.#attached) this.driver.detach(requester);
    for (const domain of this.#domains) domain.free();
    this.driver.release();
  }

  get reports(): readonly CheckReport[] {
    return this.checks.reports;
  }

  /** Notes what is to be taken apart, and puts the bug into every domain. */
  #follow(mutation: Mutation | null): void {
    const { driver } = this;
    const createDomain = driver.createDomain.bind(driver);
    driver.createDomain = (options) => {
      const domain = createDomain(options);
      this.#domains.push(domain);
      mutation?.domain?.(domain, this);
      return domain;
    };
    const attach = driver.attach.bind(driver);
    driver.attach = (requester, domain) => {
      attach(requester, domain);
      this.#attached.add(requester);
    };
  }
}
