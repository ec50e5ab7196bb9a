import { randomUUID } from "node:crypto";
import { type Wait, isProviderError } from "@diskferry/core/provider";
import {
  ApiFailure,
  cloudstackError,
  failureOf,
  isLostAnswer,
  isMissing,
  lostAnswer,
  translateFailure,
} from "../errors.ts";
import { type AnswerObject, envelopeContent, listedItems, numberIn, textIn } from "./decode.ts";
import { type CloudJob, jobOf } from "./entities.ts";
import { pause } from "./pause.ts";
import { expiresText, signatureOf } from "./signature.ts";
import { type RawAnswer, type TlsTrust, type Transport, openTransport } from "./transport.ts";

/** Values of parameters; lists are joined by commas, absent ones are left out. */
export type Parameters = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;

/** How a server is reached and who asks. */
export interface CloudstackClientOptions {
  /** `https://cloud.example.org/client/api`. */
  endpoint: string;
  /** Keys of a user; or its name and password. */
  apiKey?: string | undefined;
  secretKey?: string | undefined;
  username?: string | undefined;
  password?: string | undefined;
  /** Path of the user's domain, for a login; default `/`. */
  domain?: string | undefined;
  tls?: TlsTrust | undefined;
  /** A connection, TLS included. Default 10 000. */
  connectMs?: number | undefined;
  /** One call. Default 60 000. */
  requestMs?: number | undefined;
  /** Between the first two looks at a job; grows by itself each time. Default 1000. */
  pollMs?: number | undefined;
  /** The longest between two looks. Default 10 000. */
  pollMostMs?: number | undefined;
  /** How long a job may be pending. Default four hours; `job.cancel.threshold.minutes` of the server ends most before. */
  jobMs?: number | undefined;
  /** How long a call that changed nothing is repeated. Default 120 000. */
  retryBudgetMs?: number | undefined;
  /** Reads how calls travel; tests have their own. */
  transport?: Transport | undefined;
  notice?: ((message: string) => void) | undefined;
}

/** What a command that starts a job answers. */
export interface Submitted {
  jobId: string | undefined;
  /** Of what a create command makes. */
  id: string | undefined;
  answer: AnswerObject;
}

/** Signatures are good for so long: short, and far below the 15 minutes that hardened servers allow at most. */
const EXPIRY_MS = 5 * 60_000;
/** Beyond this difference of clocks, a refused signature is the clock's fault. */
const SKEW_MS = 60_000;
/** `default.page.size` is 500 unless somebody lowered it; a page may not be larger. */
const PAGE_SIZE = 200;
const SMALL_PAGE_SIZE = 20;

/** How often a list is read that shrinks while it is. */
const MOST_READINGS = 10;

/**
 * A client of the CloudStack API: signed POST or session, lenient answers, pages always, jobs. Typed for nothing but the
 * envelope: {@link import("./entities.ts")} reads what the commands of this provider answer, any other command is open.
 */
export class CloudstackClient implements AsyncDisposable {
  readonly endpoint: string;
  readonly #options: CloudstackClientOptions;
  readonly #transport: Transport;
  #session: Promise<{ cookie: string; key: string }> | undefined;
  #pageSize = PAGE_SIZE;

  /** @throws ProviderError CONFIG_INVALID without keys and without a user */
  constructor(options: CloudstackClientOptions) {
    const hasKeys = options.apiKey !== undefined && options.secretKey !== undefined;
    const hasUser = options.username !== undefined && options.password !== undefined;
    if (!hasKeys && !hasUser) {
      throw cloudstackError(
        "CONFIG_INVALID",
        "Give apiKey and secretKey, or username and password, of a CloudStack user.",
      );
    }
    this.endpoint = options.endpoint;
    this.#options = options;
    this.#transport =
      options.transport ??
      openTransport(options.endpoint, options.tls ?? {}, {
        connectMs: options.connectMs ?? 10_000,
        requestMs: options.requestMs ?? 60_000,
      });
  }

  /** For people who watch. */
  notice(message: string): void {
    this.#options.notice?.(message);
  }

  /**
   * Calls a command and gives the content of its answer. Reading commands are repeated while the server cannot be reached;
   * others only where it surely did nothing.
   * @throws ProviderError by the error table; of a lost answer of a changing command `isLostAnswer` is true
   */
  async call(
    command: string,
    parameters: Parameters = {},
    wait: Wait & { object?: string } = {},
  ): Promise<AnswerObject> {
    const end = Date.now() + (this.#options.retryBudgetMs ?? 120_000);
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(command, parameters, wait);
      } catch (error) {
        if (!mayRepeat(command, error) || Date.now() >= end) throw error;
        const asked = isProviderError(error) ? error.retryAfterMs : undefined;
        const own = Math.min((this.#options.pollMs ?? 1000) * 2 ** Math.min(attempt - 1, 5), 30_000);
        await pause(
          Math.min(Math.max(asked === undefined ? own : asked * 1.34, 1), Math.max(1, end - Date.now())),
          wait,
        );
      }
    }
  }

  /**
   * Every item of a list, page by page; an id that comes twice because the list moved meanwhile is given once. What is deleted
   * meanwhile moves others to a page that was read already: a list that shrank is read again, until that brings nothing new.
   * @throws ProviderError UNAVAILABLE where it changes faster than it is read
   */
  async *list(command: string, parameters: Parameters = {}, wait: Wait = {}): AsyncGenerator<AnswerObject> {
    const seen = new Set<string>();
    for (let reading = 1; reading <= MOST_READINGS; reading++) {
      const before = seen.size;
      const shrank = yield* this.#pages(command, parameters, seen, wait);
      if (!shrank || seen.size === before) return;
    }
    throw cloudstackError("UNAVAILABLE", `${command} changed in each of ${MOST_READINGS} readings; try again later.`, {
      operation: command,
      retryable: true,
    });
  }

  /** Goes through a list once, past what was seen before. @returns whether rows that a page had promised did not come */
  async *#pages(
    command: string,
    parameters: Parameters,
    seen: Set<string>,
    wait: Wait,
  ): AsyncGenerator<AnswerObject, boolean> {
    let before: string | undefined;
    let promised = 0;
    let shrank = false;
    for (let page = 1; ; page++) {
      const size = this.#pageSize;
      let content: AnswerObject;
      try {
        content = await this.call(command, { ...parameters, page, pagesize: size }, wait);
      } catch (error) {
        const text = failureOf(error)?.message ?? "";
        if (page > 1 || size === SMALL_PAGE_SIZE || !/page size can not exceed/i.test(text)) throw error;
        this.#pageSize = SMALL_PAGE_SIZE;
        page = 0;
        continue;
      }
      const items = listedItems(content);
      const count = numberIn(content["count"]) ?? 0;
      if ((page - 1) * size < promised && count < promised) shrank = true;
      // A count that goes beyond this page is of the whole list; some commands count the page's own rows.
      if (count > page * size) promised = count;
      // Some commands know no pages (listApis) and give everything each time.
      const start = JSON.stringify(items[0]);
      if (items.length === 0 || start === before) return shrank;
      before = start;
      for (const item of items) {
        const id = textIn(item["id"]) ?? textIn(item["jobid"]);
        if (id !== undefined && seen.has(id)) continue;
        if (id !== undefined) seen.add(id);
        yield item;
      }
      if (items.length > size || (items.length < size && page * size >= count)) return shrank;
    }
  }

  /** Submits a command that may start a job; {@link finish} waits for it. */
  async submit(
    command: string,
    parameters: Parameters = {},
    wait: Wait & { object?: string } = {},
  ): Promise<Submitted> {
    const answer = await this.call(command, parameters, wait);
    return { jobId: textIn(answer["jobid"]), id: textIn(answer["id"]), answer };
  }

  /** A job as it is now; undefined: the server does not know it, or forgot it (`job.expire.minutes`). */
  async job(id: string, wait: Wait = {}): Promise<CloudJob | undefined> {
    try {
      const job = jobOf(await this.call("queryAsyncJobResult", { jobid: id }, wait));
      return job.id === "" ? { ...job, id } : job;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /**
   * Waits for a job's end. Looks politely: more and more rarely, never at the same moment as others.
   * @returns undefined where the server forgot it: look at what it worked on
   * @throws ProviderError what the job failed with; UNAVAILABLE when it stays pending
   */
  async finish(id: string, wait: Wait & { object?: string } = {}): Promise<CloudJob | undefined> {
    const first = this.#options.pollMs ?? 1000;
    const limitMs = this.#options.jobMs ?? 4 * 3_600_000;
    const end = Date.now() + limitMs;
    for (let look = 1; ; look++) {
      const job = await this.job(id, wait);
      if (job === undefined || job.status === "done") return job;
      if (job.status === "failed") throw translateFailure(failureOfJob(job), wait.object);
      if (Date.now() >= end) {
        throw cloudstackError(
          "UNAVAILABLE",
          `Job ${id}${job.command === "" ? "" : ` (${job.command})`}${wait.object === undefined ? "" : ` on ${wait.object}`} is ` +
            `still pending after ${Math.round(limitMs / 1000)} s. Its host may hang: look at it in CloudStack's events, and run ` +
            `again when it has ended; it will be found then.`,
          { operation: job.command, retryable: false },
        );
      }
      const next = Math.min(first * look, this.#options.pollMostMs ?? 10_000, Math.max(1, end - Date.now()));
      await pause(next, wait);
    }
  }

  /** Submits a command and waits for its job, where there is one. Of a lost answer nobody knows: see `ensure`. */
  async run(
    command: string,
    parameters: Parameters = {},
    wait: Wait & { object?: string } = {},
  ): Promise<AnswerObject> {
    const { jobId, answer } = await this.submit(command, parameters, wait);
    if (jobId === undefined) return answer;
    return (await this.finish(jobId, wait))?.result ?? {};
  }

  /** The id of a pending job that works on an object; undefined: none does. */
  async pendingJobOf(objectId: string, wait: Wait = {}): Promise<string | undefined> {
    for await (const item of this.list("listAsyncJobs", {}, wait)) {
      const job = jobOf(item);
      if (job.status === "pending" && job.instanceId === objectId) return job.id;
    }
    return undefined;
  }

  /** The ids of pending jobs of some commands; for those that tell of no object which they work on. */
  async pendingJobsOf(commands: ReadonlySet<string>, wait: Wait = {}): Promise<string[]> {
    const found: string[] = [];
    for await (const item of this.list("listAsyncJobs", {}, wait)) {
      const job = jobOf(item);
      if (job.status === "pending" && commands.has(job.command.toLowerCase())) found.push(job.id);
    }
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport.close();
  }

  async #once(command: string, parameters: Parameters, wait: Wait & { object?: string }): Promise<AnswerObject> {
    const plain = plainParameters(command, parameters);
    if (this.#options.apiKey !== undefined && this.#options.secretKey !== undefined) {
      const form = this.#signed(plain, this.#options.apiKey, this.#options.secretKey);
      return contentOf(command, await this.#transport.post(form, command, wait), this.#clean, wait.object);
    }
    const session = await this.#login(wait);
    const form = new URLSearchParams([...plain, ["sessionkey", session.key]]);
    const answer = await this.#transport.post(form, command, { ...wait, cookie: session.cookie });
    if (answer.status !== 401) return contentOf(command, answer, this.#clean, wait.object);
    // The session ran out or the server was restarted: it did nothing, so asking again with a new one is safe.
    this.#session = undefined;
    const next = await this.#login(wait);
    const again = new URLSearchParams([...plain, ["sessionkey", next.key]]);
    const second = await this.#transport.post(again, command, { ...wait, cookie: next.cookie });
    return contentOf(command, second, this.#clean, wait.object);
  }

  #signed(plain: Map<string, string>, apiKey: string, secretKey: string): URLSearchParams {
    plain.set("apikey", apiKey);
    plain.set("signatureversion", "3");
    plain.set("expires", expiresText(Date.now() + EXPIRY_MS));
    return new URLSearchParams([...plain, ["signature", signatureOf(plain, secretKey)]]);
  }

  /** One login for all calls that wait for it. */
  #login(wait: Wait): Promise<{ cookie: string; key: string }> {
    if (this.#session !== undefined) return this.#session;
    const { username = "", password = "", domain = "/" } = this.#options;
    const opening = (async () => {
      const form = new URLSearchParams({ command: "login", username, password, domain, response: "json" });
      const answer = await this.#transport.post(form, "login", {});
      const content = contentOf("login", answer, this.#clean, `user ${username}`, loginFailure);
      const key = textIn(content["sessionkey"]);
      if (key === undefined) throw cloudstackError("AUTH", "The server opened no session.", { operation: "login" });
      const cookie = answer.cookies.map((each) => each.split(";", 1)[0] ?? "").join("; ");
      return { cookie, key };
    })();
    this.#session = opening;
    opening.catch(() => {
      if (this.#session === opening) this.#session = undefined;
    });
    wait.signal?.throwIfAborted();
    return opening;
  }

  /** Takes our secrets out of what a server, or a proxy in between, may have repeated. */
  readonly #clean = (text: string): string => {
    const { apiKey, secretKey, password } = this.#options;
    let clean = text;
    for (const secret of [apiKey, secretKey, password])
      if (secret !== undefined) clean = clean.replaceAll(secret, "***");
    return clean;
  };
}

/** Maps a client's parameter of several fields to CloudStack's way: `details[0].cpuNumber=4`. Names of fields keep their case. */
export function mapParameter(
  name: string,
  fields: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const parameters: Record<string, string> = {};
  for (const [field, value] of Object.entries(fields))
    if (value !== undefined) parameters[`${name}[0].${field}`] = value;
  return parameters;
}

/** Maps tags to `tags[0].key=…&tags[0].value=…`. */
export function tagParameters(tags: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const parameters: Record<string, string> = {};
  for (const [index, [key, value]] of Object.entries(tags).entries()) {
    parameters[`tags[${index}].key`] = key;
    if (value !== undefined) parameters[`tags[${index}].value`] = value;
  }
  return parameters;
}

/** A fresh id for a job of ours, as `customjobid` wants it: so that a command sent twice is done once. */
export function newJobId(): string {
  return randomUUID();
}

function plainParameters(command: string, parameters: Parameters): Map<string, string> {
  const plain = new Map<string, string>([
    ["command", command],
    ["response", "json"],
  ]);
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined) continue;
    plain.set(name, typeof value === "object" ? value.join(",") : String(value));
  }
  return plain;
}

/** Commands that only look; `getUploadParamsForVolume` and its like for templates and ISOs make what is uploaded. */
function isReading(command: string): boolean {
  return /^(list|query|get|find)/.test(command) && !command.startsWith("getUploadParams");
}

function mayRepeat(command: string, error: unknown): boolean {
  if (!isProviderError(error) || !error.retryable) return false;
  if (isReading(command)) return true;
  // Refused before anything was done: the API limit, a server that takes no jobs, a connection that never stood.
  const failure = failureOf(error);
  if (failure !== undefined) return failure.code === 429 || (failure.code === 503 && failure.exception !== undefined);
  return !isLostAnswer(error);
}

function failureOfJob(job: CloudJob): ApiFailure {
  const text = job.text ?? "the job failed and does not say why";
  return new ApiFailure(job.command || "job", job.resultCode, text, numberIn(job.result["cserrorcode"]));
}

function contentOf(
  command: string,
  answer: RawAnswer,
  clean: (text: string) => string,
  object: string | undefined,
  translate: (failure: ApiFailure) => Error | undefined = () => undefined,
): AnswerObject {
  let content: AnswerObject | undefined;
  try {
    content = envelopeContent(JSON.parse(answer.body));
  } catch {
    content = undefined;
  }
  if (content === undefined) throw noEnvelope(command, answer);
  const code = numberIn(content["errorcode"]) ?? (answer.status === 200 ? undefined : answer.status);
  if (code === undefined) return content;
  const text = clean(textIn(content["errortext"]) ?? "the server does not say why");
  const failure = new ApiFailure(command, code, text, numberIn(content["cserrorcode"]));
  throw translate(failure) ?? skewFailure(failure, answer.serverTime) ?? translateFailure(failure, object);
}

/** The server says the same of bad keys, an expired signature and a wrong clock; the clocks can be compared. */
function skewFailure(failure: ApiFailure, serverTime: number | undefined): Error | undefined {
  if (failure.code !== 401 || serverTime === undefined) return undefined;
  const ahead = Date.now() - serverTime;
  if (Math.abs(ahead) < SKEW_MS) return undefined;
  const minutes = Math.abs(ahead / 60_000).toFixed(1);
  return cloudstackError(
    "AUTH",
    `${failure.command} failed (401): the signature has expired for the server, whose clock is ${minutes} minutes ` +
      `${ahead > 0 ? "behind" : "ahead of"} this machine's. Set the clocks (NTP) and run again; if it stays, check the keys.`,
    { operation: failure.command, cause: failure },
  );
}

function loginFailure(failure: ApiFailure): Error {
  return cloudstackError(
    "AUTH",
    `The login failed (${failure.code}). Check username, password and domain (a path such as /customers/acme), and that the ` +
      `user is enabled.`,
    { operation: "login", cause: failure },
  );
}

function noEnvelope(command: string, { status, body }: RawAnswer): Error {
  const isProxy = [500, 502, 503, 504].includes(status);
  const start = JSON.stringify(body.slice(0, 60));
  const remedy = isProxy
    ? "A proxy or a management server in front does not answer; it is asked again."
    : "Is the endpoint the API's own address (…/client/api)?";
  const error = cloudstackError(
    isProxy ? "UNAVAILABLE" : "UNEXPECTED",
    `${command}: an answer with status ${status} that is none of CloudStack's (it begins ${start}). ${remedy}`,
    { operation: command },
  );
  return isProxy ? asLost(command, error.message) : error;
}

/** What a proxy answers in the server's place says nothing of what the server did. */
function asLost(command: string, message: string): Error {
  return lostAnswer(command, message, undefined);
}
