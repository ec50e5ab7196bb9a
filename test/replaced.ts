/**
 * The same object with some members replaced; the others go on working on it. Functions are not bound, as `await using`
 * of Node 24 takes no bound function.
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
        if (typeof value !== "function") return value;
        return (...given: unknown[]): unknown => Reflect.apply(value, object, given);
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
