import { AwsError } from "./aws-error.ts";

/** What an EC2 answer is written from; an array becomes `<item>` elements, undefined vanishes. */
export type XmlValue = string | number | boolean | undefined | XmlValue[] | { [name: string]: XmlValue };

const escapes: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

/** Writes one element and what is in it. */
export function xml(name: string, value: XmlValue): string {
  if (value === undefined) return "";
  if (Array.isArray(value)) return `<${name}>${value.map((each) => xml("item", each)).join("")}</${name}>`;
  if (typeof value === "object") {
    return `<${name}>${Object.entries(value)
      .map(([key, each]) => xml(key, each))
      .join("")}</${name}>`;
  }
  return `<${name}>${String(value).replace(/[&<>"]/g, (each) => escapes[each] ?? each)}</${name}>`;
}

/** The form of an EC2 query request. */
export class Ec2Form {
  readonly #fields: Map<string, string>;

  constructor(fields: Map<string, string>) {
    this.#fields = fields;
  }

  text(name: string): string | undefined {
    return this.#fields.get(name);
  }

  /** @throws AwsError MissingParameter */
  need(name: string): string {
    const value = this.#fields.get(name);
    if (value !== undefined && value !== "") return value;
    throw new AwsError(400, "MissingParameter", `The request must contain the parameter ${name}`);
  }

  /** The same form with one field more. */
  with(name: string, value: string): Ec2Form {
    return new Ec2Form(new Map([...this.#fields, [name, value]]));
  }

  /** The fields as one text that is equal for equal requests, without the client token. */
  fingerprint(): string {
    const fields = [...this.#fields].filter(([name]) => name !== "ClientToken" && name !== "DryRun");
    return JSON.stringify(fields.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** Refuses fields other than those named (separated by spaces; `Ebs` stands for `Ebs.VolumeSize` too). */
  only(names: string): void {
    const known = names.split(" ");
    for (const field of this.#fields.keys()) {
      const plain = field.replace(/\.\d+(?=\.|$)/g, "");
      if (known.some((name) => plain === name || plain.startsWith(`${name}.`))) continue;
      throw new AwsError(400, "UnknownParameter", `The parameter ${field} is not one that the simulator models`);
    }
  }

  flag(name: string): boolean {
    return this.#fields.get(name) === "true";
  }

  number(name: string): number | undefined {
    const value = this.#fields.get(name);
    if (value === undefined) return undefined;
    if (/^\d+$/.test(value)) return Number(value);
    throw new AwsError(400, "InvalidParameterValue", `Invalid value '${value}' for ${name}`);
  }

  /** `Name.1`, `Name.2`, … in their order. */
  list(name: string): string[] {
    return this.forms(name).flatMap((each) => each.text("") ?? []);
  }

  /** `Name.1.Field`, `Name.2.Field`, … each as a form of its own. */
  forms(name: string): Ec2Form[] {
    const byNumber = new Map<number, Map<string, string>>();
    for (const [key, value] of this.#fields) {
      const [, number, rest] = key.startsWith(`${name}.`)
        ? (/^(\d+)\.?(.*)$/.exec(key.slice(name.length + 1)) ?? [])
        : [];
      if (number === undefined) continue;
      const fields = byNumber.get(Number(number)) ?? new Map<string, string>();
      byNumber.set(Number(number), fields.set(rest ?? "", value));
    }
    return [...byNumber].sort(([a], [b]) => a - b).map(([, fields]) => new Ec2Form(fields));
  }
}
