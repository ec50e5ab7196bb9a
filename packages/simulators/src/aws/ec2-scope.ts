import { AwsError } from "./aws-error.ts";
import type { Ec2Form, XmlValue } from "./ec2-wire.ts";
import type { Caller } from "./signature.ts";
import type { World } from "./world.ts";
import type { Image, Instance, Resource, Snapshot, Tags, Volume } from "./resources.ts";

/** The fields of an answer or of one element in it. */
export type XmlObject = { [name: string]: XmlValue };

/** One EC2 action: the parameters it models, by first name, and what it does. */
export interface Ec2Action {
  /** Separated by spaces; a request with any other parameter is refused, so that nothing is ignored in silence. */
  takes: string;
  act(form: Ec2Form, caller: Caller): XmlObject | Promise<XmlObject>;
}

/** Actions by name. */
export type Ec2Actions = Record<string, Ec2Action>;

/** The parameters of an action that lists: filters and pages. */
export const listing = "Filter MaxResults NextToken";

/** An EC2 error of the caller's making. */
export const wrong = (code: string, message: string): AwsError => new AwsError(400, code, message);
/** Tags as EC2 writes them. */
export const tagSet = (tags: Tags): XmlValue => Object.entries(tags).map(([key, value]) => ({ key, value }));
/** A point in time as EC2 writes it. */
export const time = (at: number): string => new Date(at).toISOString();
/** No more than one, as filters want values. */
export const maybe = (value: string | undefined): string[] => (value === undefined ? [] : [value]);

const kinds = {
  snap: { name: "snapshot", missing: "InvalidSnapshot.NotFound", malformed: "InvalidSnapshotID.Malformed" },
  vol: { name: "volume", missing: "InvalidVolume.NotFound", malformed: "InvalidVolumeID.Malformed" },
  i: { name: "instance ID", missing: "InvalidInstanceID.NotFound", malformed: "InvalidInstanceID.Malformed" },
  ami: { name: "image id", missing: "InvalidAMIID.NotFound", malformed: "InvalidAMIID.Malformed" },
  subnet: { name: "subnet ID", missing: "InvalidSubnetID.NotFound", malformed: "InvalidSubnetID.Malformed" },
  sg: { name: "security group", missing: "InvalidGroup.NotFound", malformed: "InvalidGroupId.Malformed" },
  vpc: { name: "vpc ID", missing: "InvalidVpcID.NotFound", malformed: "InvalidVpcID.Malformed" },
} as const;

/** What the EC2 actions share: finding things that belong to the caller, tags, filters, pages and client tokens. */
export class Ec2Scope {
  readonly world: World;
  readonly #tokens = new Map<string, { fingerprint: string; ids: string[] }>();

  constructor(world: World) {
    this.world = world;
  }

  /** A thing of the caller's in the caller's Region. @throws AwsError Invalid….NotFound or Invalid….Malformed */
  own<T extends Resource>(all: ReadonlyMap<string, T>, id: string, caller: Caller, prefix: keyof typeof kinds): T {
    const kind = kinds[prefix];
    if (!new RegExp(`^${prefix}-([0-9a-f]{8}|[0-9a-f]{17})$`).test(id))
      throw wrong(kind.malformed, `Invalid id: "${id}" (expecting "${prefix}-...")`);
    const each = all.get(id);
    if (each !== undefined && each.accountId === caller.accountId && each.region === caller.region) return each;
    throw wrong(kind.missing, `The ${kind.name} '${id}' does not exist`);
  }

  snapshot = (id: string, caller: Caller): Snapshot => this.own(this.world.snapshots, id, caller, "snap");
  volume = (id: string, caller: Caller): Volume => this.own(this.world.volumes, id, caller, "vol");
  image = (id: string, caller: Caller): Image => this.own(this.world.images, id, caller, "ami");

  instance(id: string, caller: Caller): Instance {
    const instance = this.own(this.world.instances, id, caller, "i");
    if (this.world.now() < instance.launchedAt + this.world.delays.describableMs)
      throw wrong("InvalidInstanceID.NotFound", `The instance ID '${id}' does not exist`);
    return instance;
  }

  /** A snapshot that volumes can be made of: the caller's, or one shared with the caller. */
  usableSnapshot(id: string, caller: Caller): Snapshot {
    const shared = this.world.snapshots.get(id);
    const open = shared?.sharedWith.has(caller.accountId) === true || shared?.sharedWith.has("all") === true;
    const snapshot =
      shared !== undefined && open && shared.region === caller.region ? shared : this.snapshot(id, caller);
    const state = this.world.stateOf(snapshot);
    if (state !== "completed" || snapshot.tier === "archive")
      throw wrong(
        "IncorrectState",
        `Snapshot is in invalid state - ${snapshot.tier === "archive" ? "archived" : state}`,
      );
    return snapshot;
  }

  /** All of the caller's in the caller's Region. */
  mine<T extends Resource>(all: ReadonlyMap<string, T>, { accountId, region }: Caller): T[] {
    return [...all.values()].filter((each) => each.accountId === accountId && each.region === region);
  }

  /** The volumes of an instance, the root first. */
  attached(instanceId: string): Volume[] {
    const root = this.world.instances.get(instanceId)?.rootDevice;
    const mine = [...this.world.volumes.values()].filter(({ attachment }) => attachment?.instanceId === instanceId);
    return mine.sort((a, b) => Number(b.attachment?.device === root) - Number(a.attachment?.device === root));
  }

  /** The tags that a request gives to what it makes of one type. */
  tags(form: Ec2Form, type: string): Tags {
    const tags: Tags = {};
    for (const specification of form.forms("TagSpecification")) {
      specification.only("ResourceType Tag");
      if (specification.need("ResourceType") === type) Object.assign(tags, tagsIn(specification));
    }
    return tags;
  }

  /** Applies the filters that every resource has, those given by name, and paging. */
  select<T extends object>(
    form: Ec2Form,
    all: T[],
    field: (each: T, filter: string) => string[] | undefined,
    filters = "Filter",
  ): { items: T[]; nextToken?: string } {
    let items = all;
    for (const filter of form.forms(filters)) {
      const name = filter.need("Name");
      const wanted = filter.list("Value");
      const values = (each: T): string[] => {
        const tags = "tags" in each ? (each.tags as Tags) : {};
        if (name.startsWith("tag:")) return maybe(tags[name.slice(4)]);
        if (name === "tag-key") return Object.keys(tags);
        const known = field(each, name);
        if (known === undefined) throw wrong("InvalidParameterValue", `The filter '${name}' is invalid`);
        return known;
      };
      items = items.filter((each) => values(each).some((value) => wanted.some((pattern) => matches(pattern, value))));
    }
    const most = form.number("MaxResults");
    if (most !== undefined && most < 5)
      throw wrong(
        "InvalidParameterValue",
        `Value ( ${most} ) for parameter maxResults is invalid. Expecting 5 or more.`,
      );
    const from =
      form.text("NextToken") === undefined ? 0 : Number(Buffer.from(form.need("NextToken"), "base64").toString());
    if (!Number.isInteger(from)) throw wrong("InvalidNextToken", "The token is not valid.");
    const end = from + Math.min(1000, most ?? 1000);
    return {
      items: items.slice(from, end),
      ...(end < items.length ? { nextToken: Buffer.from(String(end)).toString("base64") } : {}),
    };
  }

  /** The things named by id, or all of the caller's; ids and pages cannot be asked for together. */
  named<T>(form: Ec2Form, parameter: string, one: (id: string) => T, all: () => T[]): T[] {
    const ids = form.list(parameter);
    if (ids.length === 0) return all();
    if (form.text("MaxResults") !== undefined)
      throw wrong(
        "InvalidParameterCombination",
        `The parameter ${parameter} cannot be used with the parameter maxResults`,
      );
    return ids.map(one);
  }

  /** Makes something once per client token. @throws AwsError IdempotentParameterMismatch for another request. */
  once(form: Ec2Form, caller: Caller, make: () => string[]): string[] {
    const token = form.text("ClientToken");
    if (token === undefined) return make();
    if (token.length > 64) throw wrong("InvalidParameterValue", "A client token has at most 64 characters.");
    const key = `${caller.accountId}/${caller.region}/${form.need("Action")}/${token}`;
    const earlier = this.#tokens.get(key);
    if (earlier === undefined) {
      const made = { fingerprint: form.fingerprint(), ids: make() };
      this.#tokens.set(key, made);
      return made.ids;
    }
    if (earlier.fingerprint === form.fingerprint()) return earlier.ids;
    throw wrong(
      "IdempotentParameterMismatch",
      "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
    );
  }

  /** The key of something encrypted; undefined when it is not. */
  keyFor(caller: Caller, encrypted: boolean, given?: string): string | undefined {
    return encrypted ? (given ?? this.world.defaultKey(caller.accountId, caller.region)) : undefined;
  }
}

/** At most 50 tags, keys of 127 and values of 255 characters (EC2 user guide, tag restrictions). */
const mostTags = 50;

/** The tags a form lists. @throws AwsError for names and numbers that EC2 refuses. */
export function tagsIn(form: Ec2Form): Tags {
  const tags: Tags = {};
  for (const each of form.forms("Tag")) {
    const key = each.need("Key");
    const value = each.text("Value") ?? "";
    if (key in tags) throw wrong("InvalidParameterValue", `Duplicate tag key '${key}' specified.`);
    if (key.startsWith("aws:"))
      throw wrong("InvalidParameterValue", `Tag keys starting with 'aws:' are reserved for internal use: ${key}`);
    if (key.length > 127 || value.length > 255) throw wrong("InvalidParameterValue", `The tag ${key} is too long.`);
    tags[key] = value;
  }
  limitTags(tags);
  return tags;
}

/** @throws AwsError TagLimitExceeded */
export function limitTags(tags: Tags): void {
  if (Object.keys(tags).length > mostTags)
    throw wrong("TagLimitExceeded", `More than ${mostTags} tags are not allowed.`);
}

function matches(pattern: string, value: string): boolean {
  const quoted = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${quoted}$`, "s").test(value);
}
