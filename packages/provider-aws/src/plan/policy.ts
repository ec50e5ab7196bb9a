/** What a job does in an account; each part has its actions. */
export type Duty =
  /** Read snapshots of instances or volumes and make them. */
  | "source"
  /** Stop and start the source's instance: a cutover. */
  | "power"
  /** Begin snapshots, write and complete them, read them back, remove them. */
  | "target"
  /** Make images and launch instances from commits. */
  | "launch"
  /** Let AWS convert the guest: ImportImage. */
  | "convert"
  /** Start a placeholder, swap its volumes and start it again. */
  | "swap"
  /** Make volumes of commits by `createVolume`, for instances that are there already. */
  | "volumes"
  /** Write volumes that are attached to the instance this runs on. */
  | "attached"
  /** Snapshots made through SSM, consistent with the guest's applications. */
  | "ssm"
  /** Copies between Regions and accounts by CopySnapshot. */
  | "copy"
  /** Keys of one's own. */
  | "kms";

/** One statement of an IAM policy. */
export interface PolicyStatement {
  Sid: string;
  Effect: "Allow";
  Action: string[];
  Resource: string | string[];
  Condition?: { [operator: string]: { [key: string]: string | string[] } };
}

/** An IAM policy document, to be printed as JSON. */
export interface PolicyDocument {
  Version: "2012-10-17";
  Statement: PolicyStatement[];
}

/** Where a policy holds. */
export interface PolicyScope {
  /** `*` for every Region. */
  region: string;
  /** The account's twelve digits, `*` for whichever uses the policy. */
  account?: string;
  /** `aws`, `aws-cn` or `aws-us-gov`. */
  partition?: string;
  /** The tag that marks what the job made, as it does in the options. Deleting is limited to what carries it. */
  madeBy?: { key: string; value: string };
  /** ARNs of the keys; absent: all of the account. */
  kmsKeys?: readonly string[];
  /** ARNs of roles that launched instances or imports are given. */
  passRoles?: readonly string[];
}

type Part = "blocks" | "look" | "make" | "own" | "attach";

/**
 * The actions of each duty: those over snapshots, those that only look, those over what we made, those that put a volume which
 * we made to an instance which we did not, and the rest.
 */
const actions: Readonly<Record<Duty, { [part in Part]?: string[] }>> = {
  source: {
    blocks: ["ebs:ListSnapshotBlocks", "ebs:ListChangedBlocks", "ebs:GetSnapshotBlock"],
    look: ["ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DescribeSnapshots", "ec2:DescribeInstanceTypes"],
    make: ["ec2:CreateSnapshot", "ec2:CreateSnapshots", "ec2:CreateTags"],
    own: ["ec2:DeleteSnapshot", "ec2:DeleteTags"],
  },
  // The source's instance is its owner's and carries no tag of ours.
  power: { look: ["ec2:DescribeInstances"], make: ["ec2:StopInstances", "ec2:StartInstances"] },
  target: {
    blocks: [
      "ebs:StartSnapshot",
      "ebs:PutSnapshotBlock",
      "ebs:CompleteSnapshot",
      "ebs:ListSnapshotBlocks",
      "ebs:GetSnapshotBlock",
    ],
    look: ["ec2:DescribeSnapshots", "ec2:GetEbsEncryptionByDefault"],
    make: ["ec2:CreateTags"],
    own: ["ec2:DeleteSnapshot"],
  },
  launch: {
    look: [
      "ec2:DescribeImages",
      "ec2:DescribeInstances",
      "ec2:DescribeVolumes",
      "ec2:DescribeSnapshots",
      "ec2:DescribeSecurityGroups",
      "ec2:DescribeSubnets",
    ],
    make: ["ec2:RegisterImage", "ec2:RunInstances", "ec2:CreateSecurityGroup", "ec2:CreateTags"],
    own: [
      "ec2:TerminateInstances",
      "ec2:DeregisterImage",
      "ec2:DeleteVolume",
      "ec2:RevokeSecurityGroupEgress",
      "ec2:DeleteSecurityGroup",
    ],
  },
  convert: {
    look: ["ec2:DescribeImportImageTasks"],
    make: ["ec2:ImportImage"],
    own: ["ec2:CancelImportTask"],
  },
  swap: {
    make: ["ec2:CreateVolume"],
    own: ["ec2:StopInstances", "ec2:StartInstances", "ec2:AttachVolume", "ec2:DetachVolume"],
  },
  volumes: {
    look: ["ec2:DescribeVolumes"],
    make: ["ec2:CreateVolume", "ec2:CreateTags"],
    own: ["ec2:DeleteVolume"],
  },
  attached: {
    look: ["ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DescribeSnapshots"],
    make: ["ec2:CreateVolume", "ec2:CreateSnapshot", "ec2:CreateTags"],
    // The instance that this runs on carries no tag of ours, and the volumes do.
    attach: ["ec2:AttachVolume", "ec2:DetachVolume"],
    own: ["ec2:DeleteVolume", "ec2:DeleteSnapshot"],
  },
  ssm: { make: ["ssm:SendCommand"], look: ["ssm:GetCommandInvocation", "ssm:DescribeInstanceInformation"] },
  copy: {
    look: ["ec2:DescribeSnapshots", "ec2:DescribeSnapshotAttribute"],
    make: ["ec2:CopySnapshot", "ec2:CreateTags"],
    own: ["ec2:DeleteSnapshot", "ec2:DeleteTags", "ec2:ModifySnapshotAttribute"],
  },
  kms: {},
};

const kmsActions = [
  "kms:DescribeKey",
  "kms:Decrypt",
  "kms:GenerateDataKeyWithoutPlaintext",
  "kms:ReEncryptFrom",
  "kms:ReEncryptTo",
  "kms:CreateGrant",
];

/** Every action that the duties need, sorted, each once. */
export function actionsOf(duties: readonly Duty[]): string[] {
  const named = duties.flatMap((duty) => Object.values(actions[duty]).flat());
  return [...new Set(duties.includes("kms") ? [...named, ...kmsActions] : named)].sort();
}

/**
 * The IAM policy for a job: what only looks is allowed everywhere, blocks on snapshots alone, and deleting, stopping, starting,
 * attaching and detaching on what carries the job's tag alone. Two things carry none: the source's instance, so `power` stops
 * and starts any; and the instance this runs on, so `attached` attaches to and detaches from any, but volumes of ours alone.
 */
export function policyFor(duties: readonly Duty[], scope: PolicyScope): PolicyDocument {
  const { region, account = "*", partition = "aws", madeBy, kmsKeys, passRoles = [] } = scope;
  const of = (part: Part): string[] => [...new Set(duties.flatMap((duty) => actions[duty][part] ?? []))].sort();
  const statements: PolicyStatement[] = [];
  const allow = (Sid: string, Action: string[], more: Pick<PolicyStatement, "Resource" | "Condition">): void => {
    if (Action.length > 0) statements.push({ Sid, Effect: "Allow", Action, ...more });
  };
  allow("Look", of("look"), { Resource: "*" });
  // Snapshots belong to no account in their ARN (EBS direct APIs, "Required permissions").
  allow("Blocks", of("blocks"), { Resource: `arn:${partition}:ec2:${region}::snapshot/*` });
  allow("Make", of("make"), { Resource: "*" });
  const made =
    madeBy === undefined ? {} : { Condition: { StringEquals: { [`aws:ResourceTag/${madeBy.key}`]: madeBy.value } } };
  allow("ChangeAndDeleteOwn", of("own"), { Resource: "*", ...made });
  // Both calls are judged by the volume and by the instance, and each has to be allowed.
  const each = (kind: string): string => `arn:${partition}:ec2:${region}:${account}:${kind}/*`;
  allow("AttachOwnVolumes", of("attach"), { Resource: each("volume"), ...made });
  allow("AttachToInstances", of("attach"), { Resource: each("instance") });
  if (duties.includes("kms")) {
    const Resource = kmsKeys === undefined ? `arn:${partition}:kms:${region}:${account}:key/*` : [...kmsKeys];
    allow("Keys", kmsActions, { Resource });
  }
  if (passRoles.length > 0) allow("PassRoles", ["iam:PassRole"], { Resource: [...passRoles] });
  return { Version: "2012-10-17", Statement: statements };
}
