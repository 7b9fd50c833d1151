/** The version of the package that the tool is of; a test compares it with deno.json's. */
export const VERSION = "0.1.0";

/** The oldest runtimes that the package works in; a test compares them with those of the gate. */
export const OLDEST: { readonly [runtime: string]: string } = { deno: "2.7.12", bun: "1.4.0" };
