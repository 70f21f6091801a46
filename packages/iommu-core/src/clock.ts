/** A callback that {@link VirtualClock.advance} runs when its time has come. */
export interface Timer {
  readonly at: number;
  /** The callback. */
  readonly run: () => void;
}

/**
 * Virtual time in nanoseconds. It stands still until someone advances it, so that timers (the flush queue's 10 ms, a
 * timeout of a command) are deterministic.
 */
export class VirtualClock {
  #now = 0;
  #timers: Timer[] = [];

  /** Nanoseconds since the start. */
  get now(): number {
    return this.#now;
  }

  /** Runs `run` once, `delayNs` from now; returns a handle for {@link cancel}. */
  after(delayNs: number, run: () => void): Timer {
    const timer: Timer = { at: this.#now + delayNs, run };
    const index = this.#timers.findIndex((t) => t.at > timer.at);
    if (index < 0) this.#timers.push(timer);
    else this.#timers.splice(index, 0, timer);
    return timer;
  }

  /** Forgets a timer; nothing happens when it has run already. */
  cancel(timer: Timer): void {
    const index = this.#timers.indexOf(timer);
    if (index >= 0) this.#timers.splice(index, 1);
  }

  /** Moves time on by `ns`, running what is due in order of time. */
  advance(ns: number): void {
    const end = this.#now + ns;
    for (let next = this.#timers[0]; next !== undefined && next.at <= end; next = this.#timers[0]) {
      this.#timers.shift();
      this.#now = next.at;
      next.run();
    }
    this.#now = end;
  }
}
