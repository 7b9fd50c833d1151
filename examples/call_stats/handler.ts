/**
 * What the servers of both runtimes answer, and count.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import type { CallStats } from "./call_stats.ts";

interface Route {
  /** What its calls are counted as: not the address, which has as many forms as there are users. */
  name: string;
  method: string;
  path: RegExp;
  answer: (request: Request, match: RegExpExecArray) => Response | Promise<Response>;
}

const routes: Route[] = [
  {
    name: "GET /",
    method: "GET",
    path: /^\/$/,
    answer: () => new Response("Hello.\n"),
  },
  {
    name: "GET /users/:id",
    method: "GET",
    path: /^\/users\/(\d+)$/,
    async answer(_request, [, id]) {
      await setTimeout(2); // Stands for a database.
      return Response.json({ id: Number(id) });
    },
  },
  {
    name: "POST /orders",
    method: "POST",
    path: /^\/orders$/,
    async answer(request) {
      const { prices } = await request.json() as { prices: number[] };
      return Response.json({ total: prices.reduce((sum, price) => sum + price, 0) });
    },
  },
  {
    name: "GET /report",
    method: "GET",
    path: /^\/report$/,
    answer() {
      const hash = createHash("sha256");
      for (let i = 0; i < 1000; i++) hash.update(`line ${i}\n`);
      return new Response(hash.digest("hex"));
    },
  },
];

const notFound = { name: "not found", answer: () => new Response("Not found.\n", { status: 404 }) };

/** Answers requests, and counts each before its answer is sent. */
export function createHandler(stats: CallStats): (request: Request) => Promise<Response> {
  return async (request) => {
    const { pathname } = new URL(request.url);
    for (const { name, method, path, answer } of routes) {
      const match = request.method === method ? path.exec(pathname) : null;
      if (match !== null) return await stats.measure(name, () => answer(request, match));
    }
    return stats.measure(notFound.name, notFound.answer);
  };
}
