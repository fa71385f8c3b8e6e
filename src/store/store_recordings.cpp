// Recordings of switches, and the commands of the journal that are all there is of one whose worker was killed.
#include "store/sqlite.h"

namespace gpumod {

using sqlite::from_sqlite;
using sqlite::has_table;
using sqlite::in_unflushed_transaction;
using sqlite::wall_time;

Result<std::vector<StoredCommand>> Store::commands_of(std::int64_t id) const {
  std::vector<StoredCommand> commands;
  if (!state_->database) return commands;
  try {
    SQLite::Statement row(*state_->database,
                          "SELECT step, attempt, command, service, unit, issued FROM commands WHERE switch = ? "
                          "ORDER BY rowid");
    row.bind(1, id);
    while (row.executeStep())
      commands.push_back({row.getColumn(0).getInt(), row.getColumn(1).getInt(), row.getColumn(2).getString(),
                          row.getColumn(3).getString(), row.getColumn(4).getString(),
                          wall_time(row.getColumn(5).getInt64())});
  } catch (const std::exception& problem) {
    return fail(from_sqlite("read the journal", problem));
  }
  return commands;
}

namespace {

constexpr int recordings_of_all = 200;
constexpr std::int64_t bytes_of_all_recordings = 8 << 20;

}  // namespace

Result<void> Store::keep_recording(std::int64_t id, const std::string& recording) {
  auto& database = *state_->database;
  return in_unflushed_transaction(database, "keep the recording", [&] {
    SQLite::Statement insert(database, "INSERT OR REPLACE INTO recordings (switch, bytes, recording) VALUES (?, ?, ?)");
    insert.bind(1, id);
    insert.bind(2, static_cast<std::int64_t>(recording.size()));
    insert.bind(3, recording);
    insert.exec();
    SQLite::Statement old(
        database,
        "DELETE FROM recordings WHERE switch IN (SELECT switch FROM (SELECT switch, row_number() OVER newest_first AS "
        "place, sum(bytes) OVER newest_first AS together FROM recordings WINDOW newest_first AS (ORDER BY switch "
        "DESC)) "
        "WHERE place > ? OR (place > 1 AND together > ?))");
    old.bind(1, recordings_of_all);
    old.bind(2, bytes_of_all_recordings);
    old.exec();
  });
}

Result<std::optional<std::string>> Store::recording(std::int64_t id) const {
  try {
    if (!state_->database || !has_table(*state_->database, "recordings")) return std::optional<std::string>();
    SQLite::Statement row(*state_->database, "SELECT recording FROM recordings WHERE switch = ?");
    row.bind(1, id);
    if (!row.executeStep()) return std::optional<std::string>();
    return std::optional(row.getColumn(0).getString());
  } catch (const std::exception& problem) {
    return fail(from_sqlite("read the recording", problem));
  }
}

Result<std::set<std::int64_t>> Store::recorded() const {
  std::set<std::int64_t> ids;
  try {
    if (!state_->database || !has_table(*state_->database, "recordings")) return ids;
    SQLite::Statement row(*state_->database, "SELECT switch FROM recordings");
    while (row.executeStep())
      ids.insert(row.getColumn(0).getInt64());
  } catch (const std::exception& problem) {
    return fail(from_sqlite("read the recordings", problem));
  }
  return ids;
}

}  // namespace gpumod
