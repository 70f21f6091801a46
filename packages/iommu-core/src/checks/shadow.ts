/** Puts `make(the method as it is)` in place of a method, on this one object only. */
export const shadow = <T extends object, K extends keyof T>(
  target: T,
  name: K,
  make: (original: T[K]) => T[K],
): void => {
  const method = target[name] as (...args: unknown[]) => unknown;
  const original = method.bind(target) as T[K];
  Object.defineProperty(target, name, { value: make(original), configurable: true, writable: true });
};
