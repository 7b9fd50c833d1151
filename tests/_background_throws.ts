/** A worker's module that cannot be loaded. */

throw new Error("this module throws when it is imported");
