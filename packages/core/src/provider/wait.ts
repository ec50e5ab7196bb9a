/** The last argument of everything that waits. */
export interface Wait {
  /** Aborting rejects the call with the signal's reason as soon as it is safe; nothing durable is lost by it. */
  signal?: AbortSignal | undefined;
}
