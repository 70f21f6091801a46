/** The corpus of driver bugs: what a bug is, and which check has to find it. */
import type { CheckKind, DriverHarness, InvalidationHints, PagingDomain, SystemOptions } from '@iommu-ts/iommu-core';
import type { PortFault, PortLayout } from './faulty-port.ts';
import type { MutationRig } from './rig.ts';

/** What a driver does in an ordinary life; each is free of findings with a driver that is right. */
export interface Scenario {
  readonly name: string;
  readonly doc: string;
  /** The unit must have this, or the scenario says nothing about it. */
  readonly needs?: (rig: MutationRig) => boolean;
  readonly run: (rig: MutationRig) => void;
}

/** One seeded bug: a driver that is right but for this. */
export interface Mutation {
  /** Short, in kebab case; the same name in two drivers means the same mistake with another command. */
  readonly name: string;
  /** What the driver's author did wrong, in one sentence. */
  readonly bug: string;
  readonly scenario: Scenario;
  /** Check that has to report it. */
  readonly check: CheckKind;
  /** What the hint has to name: an operation of the architecture by its part, or any text. */
  readonly hint: keyof InvalidationHints | RegExp;
  /** What is wrong at the registers. */
  readonly port?: PortFault;
  /** What is wrong above them, for the whole system, once it is set up. */
  readonly system?: (rig: MutationRig) => void;
  /** What is wrong in every domain, once it is made. */
  readonly domain?: (domain: PagingDomain, rig: MutationRig) => void;
  /** The unit it needs, where the driver's usual one will not do. */
  readonly options?: SystemOptions;
  readonly harness?: DriverHarness;
}

/** A driver to seed bugs in. */
export interface MutationTarget extends PortLayout {
  readonly harness: DriverHarness;
}
