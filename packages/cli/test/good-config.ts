/** A configuration file in which nothing is wrong; it needs the variable DISKS. */
export const goodConfig: string = `
state: ./state
concurrency: 2
receipts: { directory: ./receipts }
defaults: { verify: full, bandwidth: 1GiB }
jobs:
  web:
    source: disks/web.raw
    target: { provider: local, directory: ./backup/web, retention: { count: 2 } }
  db:
    source: { provider: local, path: "\${DISKS}/db.raw", frozen: true }
    target: "qcow2:db.qcow2"
    verify: written
    digest: sha256
    window: 00:00-24:00
    timeZone: Europe/Berlin
`;
