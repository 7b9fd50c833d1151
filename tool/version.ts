/** The version of the package that the tool is of; a test compares it with deno.json's. */
export const VERSION = "0.1.0";
