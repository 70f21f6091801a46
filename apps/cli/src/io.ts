/** Where a command writes, so that tests can look. */
export interface Io {
  out(text: string): void;
  err(text: string): void;
  /** The error stream is a terminal: progress may be drawn. */
  readonly progress: boolean;
  readonly cwd: string;
}
