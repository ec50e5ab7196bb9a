/** The same object with some members replaced; the others stay bound to it. */
export function replaced<Type extends object>(object: Type, members: Partial<Type>): Type {
  return new Proxy(object, {
    get(target, name) {
      if (Object.hasOwn(members, name)) return members[name as keyof Type];
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}
