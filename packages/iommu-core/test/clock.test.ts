import { describe, expect, test } from 'vitest';
import { VirtualClock } from '../src/clock.ts';

describe('VirtualClock', () => {
  test('runs what is due in order of time, also what a timer starts', () => {
    const clock = new VirtualClock();
    const log: string[] = [];
    clock.after(30, () => log.push(`c@${clock.now}`));
    clock.after(10, () => {
      log.push(`a@${clock.now}`);
      clock.after(5, () => log.push(`b@${clock.now}`));
    });
    clock.advance(9);
    expect(log).toEqual([]);
    clock.advance(11);
    expect(log).toEqual(['a@10', 'b@15']);
    expect(clock.now).toBe(20);
    clock.advance(10);
    expect(log).toEqual(['a@10', 'b@15', 'c@30']);
  });

  test('a cancelled timer does not run', () => {
    const clock = new VirtualClock();
    let runs = 0;
    const timer = clock.after(1, () => runs++);
    clock.cancel(timer);
    clock.cancel(timer);
    clock.advance(5);
    expect(runs).toBe(0);
  });
});
