/**
 * What `npm start` shows: a disk copied, copied again and proven, on disks of this machine; then a machine that moves from
 * one cloud to another, on embedded simulators.
 */
await import("./first-copy.ts");
await import("./first-move.ts");

console.log(`
Your own disks: npx diskferry copy <disk> <copy>, again and again; each may be
  a raw file, a block device or a qcow2 image        ./server.raw  /dev/vdb  ./server.qcow2
  an NBD server                                      nbd://host/export  nbd+unix:///export?socket=/path
Your own clouds: docs/providers/aws-ebs.md, vsphere.md and cloudstack.md beside it.
See docs/guide/command.md, or README.md for the same in thirty lines of TypeScript.`);
