import { translateFault } from "../errors.ts";
import { localizedFault } from "./vim-fault.ts";
import type { MoRef } from "./moref.ts";
import { waitForProperties } from "./property-collector.ts";
import type { VimArguments } from "./vim-argument.ts";
import type { CallWait, VimClient } from "./vim-client.ts";
import type { VimElement } from "./vim-element.ts";
import type { VimMethodName } from "./vim-methods.ts";

export interface TaskWait extends CallWait {
  /** Told the percentage whenever the server says a new one. */
  onProgress?: ((percent: number) => void) | undefined;
}

/**
 * Calls a `…_Task` method and waits for the task's end; resolves to its result, undefined where it has none. Aborting stops
 * the wait, not the task.
 *
 * @throws ProviderError by the fault of the task; NOT_FOUND where the server forgot the task (a restarted vCenter):
 * whether it was done is then to be looked up
 */
export async function runTask(
  client: VimClient,
  name: VimMethodName,
  self: MoRef,
  args: VimArguments = {},
  wait: TaskWait = {},
): Promise<VimElement | undefined> {
  const { onProgress, ...callWait } = wait;
  const task = await client.callForReference(name, self, args, callWait);
  return waitForTask(client, task, name.replace(/_Task$/, ""), { ...wait, about: wait.about ?? self.value });
}

/** Waits for a task's end; resolves to its result. `operation` is for messages. */
export async function waitForTask(
  client: VimClient,
  task: MoRef,
  operation: string,
  wait: TaskWait = {},
): Promise<VimElement | undefined> {
  const { onProgress, about = task.value, ...callWait } = wait;
  let told = -1;
  const properties = await waitForProperties(
    client,
    task,
    ["info"],
    (seen) => {
      const info = seen.get("info");
      const percent = info?.number("progress");
      if (percent !== undefined && percent !== told) onProgress?.((told = percent));
      const state = info?.string("state");
      return state === "success" || state === "error";
    },
    { ...callWait, about: `the task ${operation} of ${about}` },
  );
  const info = properties.get("info");
  const error = info?.child("error");
  if (info?.string("state") === "success") return info.child("result");
  throw translateFault(localizedFault(error ?? info!), operation, about);
}
