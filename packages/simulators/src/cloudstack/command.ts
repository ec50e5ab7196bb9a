import { invalid } from "./api-error.ts";
import type { Parameters } from "./parameters.ts";
import type { ReleaseName } from "./releases.ts";
import type { ResponseView } from "./responses.ts";

/** One request that got through: who calls what. */
export interface Call extends ResponseView {
  readonly parameters: Parameters;
}

/** What a synchronous command does: the content of its answer. */
export type Answer = (call: Call) => object | Promise<object>;

/** What an asynchronous command does. */
export interface Submission {
  /** Of a command that makes something: its id, in the answer and in the job. */
  readonly createdId?: string;
  readonly instanceType?: string;
  readonly instanceId?: string;
  /** Jobs of one machine are done one after the other. */
  readonly queue?: string | undefined;
  /** Done in the job; its result. */
  work(): Promise<object>;
  /** What a job that fails before its work makes of the row it was for. */
  failed?(): void;
}

/** A command of the API. */
export type CommandDefinition = {
  readonly name: string;
  /** The middle of the server's class name: `user.volume`. */
  readonly group: string;
  /** Undefined: every release that is simulated. */
  readonly since?: ReleaseName;
  /** Only for root administrators. */
  readonly rootAdmin?: true;
  /** Names as `listApis` tells them, beyond paging and scope. */
  readonly parameters: readonly string[];
  readonly description: string;
} & (
  | { readonly answer: Answer }
  /** Checks the request and makes the row of what it creates; the rest is the job's. */
  | { readonly submit: (call: Call) => Submission | Promise<Submission> }
);

/** A list's answer as the server gives it: an empty object where there is nothing. */
export function listed<T>(call: Call, key: string, items: readonly T[], write: (item: T) => object): object {
  const { parameters, world } = call;
  const page = parameters.integer("page");
  const pageSize = parameters.integer("pagesize");
  const most = world.settings.pageSize;
  if (pageSize !== undefined && (pageSize > most || pageSize === 0)) {
    throw invalid(`Page size can not exceed max allowed page size: ${most}`);
  }
  if ((page === undefined) !== (pageSize === undefined)) {
    throw invalid(`"page" parameter is required when "pagesize" is specified, and the other way round`);
  }
  if (page !== undefined && page < 1)
    throw invalid(`Unable to execute API command ${parameters.command}: page ${page}`);
  if (items.length === 0) return {};
  if (parameters.flag("retrieveonlyresourcecount") === true) return { count: items.length };
  const start = page === undefined || pageSize === undefined ? 0 : (page - 1) * pageSize;
  const part = items.slice(start, start + (pageSize ?? most));
  return part.length === 0 ? { count: items.length } : { count: items.length, [key]: part.map((item) => write(item)) };
}
