// boost.cpp - Boost.Interprocess, taken and let go in the memory that it offers for that.
//
//   boost DIRECTORY
//
// Answers each line of input with a round, "name ns-per-pair ...", as bench.h does. The subjects
// live in a managed mapped file, where several processes would find them by name.

#include <boost/interprocess/managed_mapped_file.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_semaphore.hpp>
#include <boost/interprocess/sync/interprocess_sharable_mutex.hpp>

#include <chrono>
#include <cstdio>
#include <string>

namespace ipc = boost::interprocess;

constexpr long kPairs = 20'000;
constexpr long kFinds = 5'000;

template <typename Body>
void measure(const char *name, long count, Body body) {
  using clock = std::chrono::steady_clock;
  const auto started = clock::now();
  for (long i = 0; i < count; i++) body();
  const std::chrono::duration<double, std::nano> took = clock::now() - started;
  std::printf("%s %.3f ", name, took.count() / static_cast<double>(count));
}

int main(int count, char **words) {
  if (count != 2) return 2;
  const std::string path = std::string(words[1]) + "/boost";
  ipc::managed_mapped_file memory(ipc::open_or_create, path.c_str(), 65'536);
  auto *mutex = memory.find_or_construct<ipc::interprocess_mutex>("mutex")();
  auto *sharable = memory.find_or_construct<ipc::interprocess_sharable_mutex>("sharable")();
  auto *semaphore = memory.find_or_construct<ipc::interprocess_semaphore>("semaphore")(1);

  char line[64];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    measure("mutex", kPairs, [&] { mutex->lock(); mutex->unlock(); });
    measure("sharable_write", kPairs, [&] { sharable->lock(); sharable->unlock(); });
    measure("sharable_read", kPairs, [&] { sharable->lock_sharable(); sharable->unlock_sharable(); });
    measure("semaphore", kPairs, [&] { semaphore->wait(); semaphore->post(); });
    measure("find", kFinds, [&] { (void)memory.find_or_construct<ipc::interprocess_mutex>("mutex")(); });
    std::printf("\n");
    std::fflush(stdout);
  }
  return 0;
}
