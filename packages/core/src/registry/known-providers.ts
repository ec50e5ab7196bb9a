/** A provider of this project, so that an error can name the package that is missing. */
export interface KnownProvider {
  readonly name: string;
  readonly package: string;
  readonly schemes: readonly string[];
}

/** The providers published together with core. Others are found by their own packages alone. */
export const knownProviders: readonly KnownProvider[] = [
  {
    name: "local",
    package: "@diskferry/provider-local",
    schemes: ["local", "file", "raw", "qcow2", "nbd", "nbds", "nbd+unix", "nbds+unix"],
  },
  { name: "aws-ebs", package: "@diskferry/provider-aws", schemes: ["aws-ebs"] },
  { name: "vsphere", package: "@diskferry/provider-vmware", schemes: ["vsphere"] },
  { name: "cloudstack", package: "@diskferry/provider-cloudstack", schemes: ["cloudstack"] },
];
