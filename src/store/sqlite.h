// What the files of this room share: SQLite behind Result.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>
#include <sqlite3.h>

#include "store/store.h"

namespace gpumod {

struct Store::State {
  std::unique_ptr<SQLite::Database> database;  // none: a corrupt file that was opened for reading
  std::string notice;
};

namespace sqlite {

inline std::int64_t microseconds(WallTime time) {
  return time.time_since_epoch().count();
}
inline WallTime wall_time(std::int64_t count) {
  return WallTime(std::chrono::microseconds(count));
}

/// `file`: the database.
inline Error from_sqlite(std::string_view stage, const std::exception& problem, std::string_view file = {}) {
  const auto* known = dynamic_cast<const SQLite::Exception*>(&problem);
  const int code = known ? known->getErrorCode() : 0;
  std::string_view remedy = "Is the disk full, or the state directory not writable?";
  if (code == SQLITE_FULL) remedy = "Make room on that disk, or set GPUMOD_STATE_DIR to a directory on another one.";
  if (code == SQLITE_READONLY || code == SQLITE_CANTOPEN || code == SQLITE_PERM)
    remedy = "Make that directory writable for you, or set GPUMOD_STATE_DIR to one that is.";
  return Error{ErrorCode::environment,
               file.empty() ? fmt::format("{}: {}", stage, problem.what())
                            : fmt::format("{} ({}): {}", stage, file, problem.what()),
               std::string(remedy),
               {}};
}

/// Runs `work` in one transaction; SQLite's exceptions end here.
template <typename Work>
Result<void> in_transaction(SQLite::Database& database, std::string_view stage, Work work) {
  try {
    SQLite::Transaction transaction(database, SQLite::TransactionBehavior::IMMEDIATE);
    work();
    transaction.commit();
  } catch (const std::exception& problem) {
    return fail(from_sqlite(stage, problem, database.getFilename()));
  }
  return {};
}

/// The same for what may be lost: a commit is not flushed, a checkpoint is. (With synchronous=OFF a power cut could cost
/// the whole file.)
template <typename Work>
Result<void> in_unflushed_transaction(SQLite::Database& database, std::string_view stage, Work work) {
  try {
    const int durability = database.execAndGet("PRAGMA synchronous").getInt();
    database.exec(fmt::format("PRAGMA synchronous = {}", std::min(durability, 1)));
    auto written = in_transaction(database, stage, std::move(work));
    database.exec(fmt::format("PRAGMA synchronous = {}", durability));
    return written;
  } catch (const std::exception& problem) {
    return fail(from_sqlite(stage, problem));
  }
}

/// A reader migrates nothing: the file may be of an older gpumod.
inline bool has_table(SQLite::Database& database, const char* name) {
  return database.tableExists(name);
}

}  // namespace sqlite
}  // namespace gpumod
