/** Rows as text, columns padded to their widest cell; columns of numbers are set to the right. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, column) => Math.max(name.length, ...rows.map((row) => (row[column] ?? "").length)));
  const rightward = header.map(
    (_, column) => rows.length > 0 && rows.every((row) => /^(-|\d.*)?$/.test(row[column] ?? "")),
  );
  const line = (cells: readonly string[]): string =>
    widths
      .map((width, column) => {
        const cell = cells[column] ?? "";
        return rightward[column] ? cell.padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd();
  return [line(header), ...rows.map(line)].map((text) => `${text}\n`).join("");
}
