import { GetCommandInvocationCommand, SendCommandCommand } from "@aws-sdk/client-ssm";
import type { Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { awsError } from "../errors.ts";
import { sleep } from "../limits/clock.ts";

/** What a command in a guest came to. */
export interface GuestOutcome {
  /** As Systems Manager calls it: `Success`, `Failed`, `TimedOut` … */
  status: string;
  /** The end of what it said. */
  output: string;
}

/** States of an invocation that are no end (Systems Manager, GetCommandInvocation). */
const underWay = new Set(["Pending", "InProgress", "Delayed", "Cancelling"]);
/** What a command may need besides its own time, to be delivered and reported, in milliseconds. */
const deliveryMs = 60_000;

/**
 * Runs a document of Systems Manager in an instance's guest and waits for its end.
 * @throws ProviderError UNSUPPORTED where the guest is not reached; UNAVAILABLE where it does not end in time
 */
export async function runInGuest(
  connection: AwsConnection,
  request: {
    instanceId: string;
    document: string;
    parameters: Record<string, string[]>;
    comment: string;
    timeoutSeconds: number;
  } & Wait,
): Promise<GuestOutcome> {
  const { instanceId, document, parameters, comment, timeoutSeconds, signal } = request;
  const { pollMs } = connection.settings.timeouts;
  const { Command } = await connection.ssm(
    new SendCommandCommand({
      InstanceIds: [instanceId],
      DocumentName: document,
      Parameters: parameters,
      Comment: comment.slice(0, 100),
      TimeoutSeconds: Math.max(30, timeoutSeconds),
    }),
    // Sent once: a second one would freeze a guest that is frozen already.
    { object: instanceId, once: true, signal },
  );
  const CommandId = Command?.CommandId ?? "";
  const end = performance.now() + timeoutSeconds * 1000 + deliveryMs;
  for (;;) {
    await sleep(Math.min(pollMs, 2000), signal);
    const seen = await connection.ssm(new GetCommandInvocationCommand({ CommandId, InstanceId: instanceId }), {
      object: `${document} on ${instanceId}`,
      signal,
    });
    const status = seen.Status ?? "Pending";
    if (!underWay.has(status)) {
      const output = `${seen.StandardOutputContent ?? ""}\n${seen.StandardErrorContent ?? ""}`.trim();
      return { status, output: output.slice(-500) };
    }
    if (performance.now() > end)
      throw awsError(
        "UNAVAILABLE",
        `${document} on ${instanceId} has not ended after ${timeoutSeconds} s (${status}). See it in Systems Manager: ${CommandId}.`,
        { operation: "SendCommand", retryable: false },
      );
  }
}

/** So many seconds the guard of a freeze may take to come up. */
const GUARD_TURNS = 30;

/** What stands in the guest while a freeze is guarded: whoever takes it away thaws, and nobody else. */
const guardOf = (id: string): string => `/run/diskferry-guard.${id}`;

/**
 * Shell lines that run `pre`, and see to it that `post` is run in the guest after `seconds` by itself: whoever asked may be
 * killed in between, and a guest must not stay frozen. A freeze that somebody else left is ended first: its guard would strike
 * in the midst of this one.
 */
export function guardedCommands(
  pre: readonly string[],
  post: readonly string[],
  { id, seconds }: { id: string; seconds: number },
): string[] {
  const thaw = `echo ${Buffer.from(post.join("\n")).toString("base64")} | base64 -d | sh`;
  const guard = guardOf(id);
  return [
    `for left in ${guardOf("*")}; do if [ -e "$left" ] && rm "$left" 2>/dev/null; then ${thaw}; fi; done`,
    "set -e",
    // Nothing is frozen where the guard could not know whether it is wanted.
    `: >${guard}.new`,
    // In a session of its own: the agent kills the whole group of a command that takes too long or is cancelled.
    `$(command -v setsid || true) nohup sh -c 'mv ${guard}.new ${guard} || exit; sleep ${seconds}; rm ${guard} && ${thaw}' >/dev/null 2>&1 </dev/null &`,
    // Nor before it is there. One that comes too late finds the next freeze to have taken its file away, and strikes nobody.
    `turns=${GUARD_TURNS}; until [ -e ${guard} ]; do [ "$turns" -gt 0 ]; turns=$((turns - 1)); sleep 1; done`,
    ...pre,
  ];
}

/** Shell lines that run `post` and call off what `guardedCommands` left behind; failing where that had already struck. */
export function releaseCommands(post: readonly string[], id: string): string[] {
  return [
    `held=1; if rm ${guardOf(id)} 2>/dev/null; then held=0; fi`,
    "(",
    "set -e",
    ...post,
    ")",
    // Not joined by && to the list above: there `set -e` means nothing.
    "ended=$?",
    '[ "$held$ended" = 00 ]',
  ];
}
