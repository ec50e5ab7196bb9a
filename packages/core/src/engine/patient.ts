import type { SourceConnector } from "../provider/source.ts";
import type { TargetProvider } from "../provider/target.ts";
import type { Wait } from "../provider/wait.ts";
import type { CallMethod } from "../layers/layer.ts";
import { controlLayer, type AttemptPolicy } from "./attempts.ts";
import type { Job } from "./job.ts";

/** Calls that may be repeated, as their contract makes them idempotent; what the layers call them. */
const SOURCE: Record<string, CallMethod> = { machine: "open", snapshot: "snapshot", open: "open", release: "release" };
const TRACKER: Record<string, CallMethod> = { enable: "open", checkpoint: "checkpoint" };
const TARGET: Record<string, CallMethod> = { create: "create", open: "open", read: "open", remove: "remove" };

/**
 * The same job, its calls to both places tried again when they fail for a passing reason: providers repeat nothing. A
 * member that is absent stays absent. Power, launches and commits are asked for once.
 */
export function patient(job: Job, policy: AttemptPolicy): Job {
  return { ...job, source: patientSource(job.source, policy), target: repeating(job.target, TARGET, "target", policy) };
}

function patientSource(source: SourceConnector, policy: AttemptPolicy): SourceConnector {
  const { tracker } = source;
  const calls = repeating(source, SOURCE, "source", policy);
  if (tracker === undefined) return calls;
  const patientTracker = repeating(tracker, TRACKER, "source", policy);
  return new Proxy(standIn(calls), {
    get: (_, name): unknown => (name === "tracker" ? patientTracker : Reflect.get(calls, name, calls)),
  });
}

function repeating<Place extends SourceConnector | TargetProvider | NonNullable<SourceConnector["tracker"]>>(
  place: Place,
  methods: Record<string, CallMethod>,
  side: "source" | "target",
  policy: AttemptPolicy,
): Place {
  const layer = controlLayer(policy);
  return new Proxy(standIn(place), {
    get(_, name): unknown {
      const member: unknown = Reflect.get(place, name, place);
      if (typeof member !== "function") return member;
      const method = typeof name === "string" ? methods[name] : undefined;
      if (method === undefined) return member.bind(place) as unknown;
      return async (...given: unknown[]): Promise<unknown> => {
        let result: unknown;
        const signal = signalOf(given.at(-1)) ?? NEVER;
        await layer({ method, side, attempt: 1, signal }, async () => {
          result = await (member.apply(place, given) as Promise<unknown>);
        });
        return result;
      };
    },
  });
}

/** What a proxy stands for: it must not hold a frozen place's own members, of which a proxy may change none. */
function standIn<Place extends object>(place: Place): Place {
  return Object.create(place) as Place;
}

const NEVER = new AbortController().signal;

function signalOf(last: unknown): AbortSignal | undefined {
  return typeof last === "object" && last !== null ? (last as Wait).signal : undefined;
}
