import { ApiError, errorCodes, invalid } from "./api-error.ts";

/**
 * A request's parameters as commands see them: plain names without case, and `name[n].field` gathered by name and n, where
 * fields keep their case (`ParamUnpackWorker`).
 */
export class Parameters {
  readonly command: string;
  readonly #plain = new Map<string, string>();
  readonly #maps = new Map<string, Map<number, Map<string, string>>>();

  /** @throws ApiError 430 for brackets that make no sense, 431 for control characters */
  constructor(command: string, given: ReadonlyMap<string, string>) {
    this.command = command;
    for (const [name, value] of given) {
      // oxlint-disable-next-line no-control-regex -- control characters are what the server refuses
      if (/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(value)) {
        throw new ApiError(
          errorCodes.parameter,
          `Received value containing illegal ASCII non-printable characters for parameter ${name}`,
        );
      }
      if (name.includes("[")) this.#addField(name, value);
      else this.#plain.set(name.toLowerCase(), value);
    }
  }

  /** The value; undefined where it is missing or empty. */
  text(name: string): string | undefined {
    const value = this.#plain.get(name);
    return value === "" ? undefined : value;
  }

  /** @throws ApiError 431 where it is missing */
  required(name: string): string {
    const value = this.text(name);
    if (value !== undefined) return value;
    throw new ApiError(
      errorCodes.parameter,
      `Unable to execute API command ${this.command.toLowerCase()} due to missing parameter ${name}`,
      9999,
    );
  }

  /** @throws ApiError 431 where it is no whole number */
  integer(name: string): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    if (!/^-?\d{1,15}$/.test(value)) throw this.badValue(name, value, "it is not a number");
    return Number(value);
  }

  /** @throws ApiError 431 where it is neither true nor false */
  flag(name: string): boolean | undefined {
    const value = this.text(name)?.toLowerCase();
    if (value === undefined) return undefined;
    return value === "true";
  }

  /** Values joined by commas; empty where it is missing. */
  list(name: string): string[] {
    return (this.text(name) ?? "").split(",").filter((each) => each !== "");
  }

  /** The fields of `name[n].field`, one map for each n in order. */
  entries(name: string): ReadonlyMap<string, string>[] {
    const indexed = this.#maps.get(name) ?? new Map<number, Map<string, string>>();
    return [...indexed].toSorted(([one], [other]) => one - other).map(([, fields]) => fields);
  }

  /** The fields of all `name[n].field` together, as details are given. */
  details(name: string): Map<string, string> {
    return new Map(this.entries(name).flatMap((fields) => [...fields]));
  }

  /** 431 as the server words a value that leads to no entity. */
  badValue(name: string, value: string, reason?: string): ApiError {
    const why = reason ?? "due to incorrect long value format, or entity does not exist";
    return invalid(
      `Unable to execute API command ${this.command.toLowerCase()} due to invalid value. Invalid parameter ${name} ` +
        `value=${value} ${why} or due to incorrect parameter annotation for the field in api cmd class.`,
    );
  }

  #addField(name: string, value: string): void {
    const match = /^([^[\].]+)\[(\d+)\](?:\.(.+))?$/.exec(name);
    if (match === null) {
      throw new ApiError(
        errorCodes.malformedParameter,
        `Unable to decode parameter ${name}; if specifying an object array, please use parameter[index].field=XXX, ` +
          `e.g. userGroupList[0].group=httpGroup`,
      );
    }
    const [, array = "", index = "0", field = ""] = match;
    const indexed = this.#maps.get(array.toLowerCase()) ?? new Map<number, Map<string, string>>();
    this.#maps.set(array.toLowerCase(), indexed);
    const fields = indexed.get(Number(index)) ?? new Map<string, string>();
    indexed.set(Number(index), fields.set(field, value));
  }
}
