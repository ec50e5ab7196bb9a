/**
 * The same object with some members replaced; the others stay bound to it. No Proxy, as `await using` of Node 24 finds
 * no `Symbol.asyncDispose` through one.
 */
export function replaced<Type extends object>(object: Type, members: Partial<Type>): Type {
  const copy: object = {};
  for (
    let level: object | null = object;
    level !== null && level !== Object.prototype;
    level = Object.getPrototypeOf(level) as object | null
  ) {
    for (const name of Reflect.ownKeys(level)) {
      if (name === "constructor" || Object.hasOwn(copy, name)) continue;
      const get = (): unknown => {
        const value: unknown = Reflect.get(object, name, object);
        return typeof value === "function" ? (value.bind(object) as unknown) : value;
      };
      Object.defineProperty(copy, name, { enumerable: true, configurable: true, get });
    }
  }
  for (const name of Reflect.ownKeys(members)) {
    const value: unknown = Reflect.get(members, name);
    Object.defineProperty(copy, name, { enumerable: true, configurable: true, value });
  }
  return copy as Type;
}
