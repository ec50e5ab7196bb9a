import {
  DescribeImagesCommand,
  DescribeInstancesCommand,
  DescribeSecurityGroupsCommand,
  DescribeVolumesCommand,
  type Filter,
  type Image,
  type Instance,
  type SecurityGroup,
  type Volume,
} from "@aws-sdk/client-ec2";
import { isProviderError, type Wait } from "@diskferry/core/provider";
import type { AwsConnection } from "../connection/connection.ts";
import { madeBy, targetTagNames } from "../target/target-tags.ts";

/** Which of a launch's things are looked for: by the launch, or all of a job. */
export type LaunchedBy = { launch: string } | { job: string };

function filtersOf({ settings }: AwsConnection, by: LaunchedBy): Filter[] {
  const names = targetTagNames(settings.product);
  const made = madeBy(settings.product);
  const own: Filter =
    "launch" in by
      ? { Name: `tag:${names.launch}`, Values: [by.launch] }
      : { Name: `tag:${names.job}`, Values: [by.job] };
  // Only what a launch made: snapshots and what a source made carry the job's tag too.
  const launched: Filter = { Name: "tag-key", Values: [names.launch] };
  return [own, launched, { Name: `tag:${made.key}`, Values: [made.value] }];
}

/** Instances of a launch that are not terminated, nor about to be. */
export async function instancesOf(connection: AwsConnection, by: LaunchedBy, { signal }: Wait): Promise<Instance[]> {
  const Filters = [
    ...filtersOf(connection, by),
    { Name: "instance-state-name", Values: ["pending", "running", "stopping", "stopped"] },
  ];
  return pages(async (NextToken) => {
    const command = new DescribeInstancesCommand({ Filters, NextToken });
    const page = await connection.ec2(command, { object: "launched instances", signal });
    return { items: (page.Reservations ?? []).flatMap(({ Instances = [] }) => Instances), next: page.NextToken };
  });
}

export async function volumesOf(connection: AwsConnection, by: LaunchedBy, { signal }: Wait): Promise<Volume[]> {
  return pages(async (NextToken) => {
    const command = new DescribeVolumesCommand({ Filters: filtersOf(connection, by), NextToken });
    const page = await connection.ec2(command, { object: "volumes of launches", signal });
    return { items: page.Volumes ?? [], next: page.NextToken };
  });
}

export async function imagesOf(connection: AwsConnection, by: LaunchedBy, { signal }: Wait): Promise<Image[]> {
  return pages(async (NextToken) => {
    const command = new DescribeImagesCommand({ Owners: ["self"], Filters: filtersOf(connection, by), NextToken });
    const page = await connection.ec2(command, { object: "images of launches", signal });
    return { items: page.Images ?? [], next: page.NextToken };
  });
}

export async function groupsOf(connection: AwsConnection, by: LaunchedBy, { signal }: Wait): Promise<SecurityGroup[]> {
  return pages(async (NextToken) => {
    const command = new DescribeSecurityGroupsCommand({ Filters: filtersOf(connection, by), NextToken });
    const page = await connection.ec2(command, { object: "security groups of launches", signal });
    return { items: page.SecurityGroups ?? [], next: page.NextToken };
  });
}

/** One instance; undefined while, or because, AWS does not know it. */
export async function findInstance(
  connection: AwsConnection,
  id: string,
  { signal }: Wait,
): Promise<Instance | undefined> {
  try {
    const page = await connection.ec2(new DescribeInstancesCommand({ InstanceIds: [id] }), { object: id, signal });
    return page.Reservations?.[0]?.Instances?.[0];
  } catch (error) {
    if (isProviderError(error) && error.code === "NOT_FOUND") return undefined;
    throw error;
  }
}

async function pages<Item>(
  page: (token: string | undefined) => Promise<{ items: Item[]; next: string | undefined }>,
): Promise<Item[]> {
  const all: Item[] = [];
  for (let token: string | undefined; ;) {
    const { items, next } = await page(token);
    all.push(...items);
    if (next === undefined || next === "") return all;
    token = next;
  }
}
