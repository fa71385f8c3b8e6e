#include "store/store.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include <SQLiteCpp/SQLiteCpp.h>
#include <boost/json.hpp>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/paths.h"
#include "model/json.h"
#include "store/sqlite.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

using sqlite::from_sqlite;
using sqlite::has_table;
using sqlite::in_transaction;
using sqlite::in_unflushed_transaction;
using sqlite::microseconds;
using sqlite::wall_time;

namespace {

/// Each entry brings the schema one version further; entries are never changed, only added.
constexpr std::array migrations{
    R"sql(
      CREATE TABLE goal (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), goal TEXT NOT NULL, set_at INTEGER NOT NULL);
      CREATE TABLE switches (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, goal TEXT NOT NULL, previous TEXT NOT NULL, from_mode TEXT NOT NULL,
        mutated INTEGER NOT NULL, failure TEXT NOT NULL, boot_id TEXT NOT NULL, result TEXT NOT NULL,
        began INTEGER NOT NULL, ended INTEGER, report TEXT NOT NULL);
      CREATE TABLE commands (
        switch INTEGER NOT NULL REFERENCES switches (id), step INTEGER NOT NULL, attempt INTEGER NOT NULL,
        command TEXT NOT NULL, service TEXT NOT NULL, unit TEXT NOT NULL, text TEXT NOT NULL, issued INTEGER NOT NULL);
      CREATE INDEX commands_by_switch ON commands (switch);
    )sql",
    R"sql(
      CREATE TABLE measurements (
        id INTEGER PRIMARY KEY, subject TEXT NOT NULL, key TEXT NOT NULL, gpu TEXT NOT NULL, at INTEGER NOT NULL,
        run TEXT NOT NULL);
      CREATE INDEX measurements_by_subject ON measurements (subject, key, gpu);
    )sql",
    R"sql(
      CREATE TABLE models (
        id TEXT PRIMARY KEY, source TEXT NOT NULL, path TEXT NOT NULL, hub_id TEXT NOT NULL, hub_file TEXT NOT NULL,
        facts TEXT NOT NULL, registered INTEGER NOT NULL);
    )sql",
    R"sql(
      CREATE TABLE recordings (
        switch INTEGER PRIMARY KEY REFERENCES switches (id), bytes INTEGER NOT NULL, recording TEXT NOT NULL);
    )sql",
    // Every command asks for the open ones. Without this it read every page of the history for that: 3.4 ms of 1000
    // switches, 0.15 ms with it.
    R"sql(
      CREATE INDEX open_switches ON switches (id) WHERE ended IS NULL;
    )sql",
};

bool is_corrupt(const SQLite::Exception& problem) {
  return problem.getErrorCode() == SQLITE_CORRUPT || problem.getErrorCode() == SQLITE_NOTADB;
}

/// A rollback journal that a reader may not play back. One is kept only until a new file has become a WAL database, which
/// is before it holds anything of ours.
bool died_being_made(const SQLite::Exception& problem) {
  return problem.getExtendedErrorCode() == SQLITE_READONLY_ROLLBACK;
}

/// What every command reads. A page that is damaged elsewhere costs a line of history at most.
void read_through(SQLite::Database& database) {
  for (const char* table : {"goal", "switches", "commands"}) {
    SQLite::Statement rows(database, fmt::format("SELECT rowid, * FROM {} ORDER BY rowid DESC LIMIT 50", table));
    while (rows.executeStep())
      for (int column = 0; column < rows.getColumnCount(); ++column)
        (void)rows.getColumn(column).getBytes();
  }
  SQLite::Statement open_ones(database, "SELECT count(*) FROM switches WHERE ended IS NULL");
  open_ones.executeStep();
}

void migrate(SQLite::Database& database) {
  const int version = database.execAndGet("PRAGMA user_version").getInt();
  if (version > static_cast<int>(migrations.size()))
    throw SQLite::Exception(fmt::format("the database is of a newer gpumod (schema {})", version));
  for (std::size_t next = static_cast<std::size_t>(version); next < migrations.size(); ++next) {
    SQLite::Transaction transaction(database, SQLite::TransactionBehavior::IMMEDIATE);
    if (database.execAndGet("PRAGMA user_version").getInt() > static_cast<int>(next)) continue;  // another did it
    database.exec(migrations[next]);
    database.exec(fmt::format("PRAGMA user_version = {}", next + 1));
    transaction.commit();
  }
}

std::unique_ptr<SQLite::Database> open_and_migrate(const fs::path& file) {
  auto database = std::make_unique<SQLite::Database>(file.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 5000);
  database->exec("PRAGMA journal_mode = WAL");
  database->exec("PRAGMA synchronous = FULL");
  database->exec("PRAGMA foreign_keys = ON");
  migrate(*database);
  read_through(*database);
  return database;
}

/// SQLite reads a WAL database through a second file, which it cannot make on a disk that is full or read-only. Where
/// there is no log, the database alone holds everything, and on such a disk nobody changes it.
std::unique_ptr<SQLite::Database> open_to_read(const fs::path& file) {
  try {
    auto database = std::make_unique<SQLite::Database>(file.string(), SQLite::OPEN_READONLY, 2000);
    (void)database->execAndGet("PRAGMA user_version");
    return database;
  } catch (const SQLite::Exception& thrown) {
    const int code = thrown.getErrorCode();
    const bool unmakable = code == SQLITE_CANTOPEN || code == SQLITE_READONLY || code == SQLITE_FULL;
    if (!unmakable || fs::exists(file.string() + "-wal") || fs::exists(file.string() + "-journal")) throw;
  }
  std::string address = "file:";
  for (const char c : file.string())
    address +=
        c == '%' || c == '?' || c == '#' ? fmt::format("%{:02x}", static_cast<unsigned char>(c)) : std::string{c};
  return std::make_unique<SQLite::Database>(address + "?immutable=1", SQLite::OPEN_READONLY | SQLite::OPEN_URI);
}

}  // namespace

Store::Store(std::unique_ptr<State> state) : state_(std::move(state)) {}
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;
Store::~Store() = default;

const std::string& Store::notice() const {
  return state_->notice;
}

Result<Store> Store::open(const fs::path& directory, WhenCorrupt corrupt) {
  TRY(make_own_directory(directory, "GPUMOD_STATE_DIR"));
  const auto file = directory / "state.db";
  auto state = std::make_unique<State>();
  const auto old_mask = ::umask(0077);
  try {
    try {
      state->database = open_and_migrate(file);
    } catch (const SQLite::Exception& problem) {
      if (!is_corrupt(problem)) throw;
      if (corrupt == WhenCorrupt::refused) {
        ::umask(old_mask);
        return fail(ErrorCode::environment,
                    fmt::format("the state file {} is unreadable ({})", file.string(), problem.what()),
                    "The next switch, or gpumod repair, moves it aside and begins a new one.");
      }
      const auto aside = fmt::format("{}.corrupt-{}", file.string(), microseconds(wall_now()));
      std::error_code ignored;
      fs::rename(file, aside, ignored);
      fs::remove(file.string() + "-wal", ignored);
      fs::remove(file.string() + "-shm", ignored);
      state->notice = fmt::format("the state file was unreadable ({}); it was moved to {} and a new one begun",
                                  problem.what(), aside);
      state->database = open_and_migrate(file);
    }
  } catch (const std::exception& problem) {
    ::umask(old_mask);
    return fail(from_sqlite("open the state", problem, file.string()));
  }
  ::umask(old_mask);
  return Store(std::move(state));
}

Result<std::optional<Store>> Store::open_existing(const fs::path& directory) {
  const auto file = directory / "state.db";
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) {
    if (errno == ENOENT) return std::optional<Store>();
    return fail(or_elsewhere(unwritable(fmt::format("the state cannot be read: open {}", file.string()), errno),
                             "GPUMOD_STATE_DIR"));
  }
  auto state = std::make_unique<State>();
  try {
    state->database = open_to_read(file);
    if (state->database->execAndGet("PRAGMA user_version").getInt() == 0) return std::optional<Store>();
    read_through(*state->database);
  } catch (const SQLite::Exception& thrown) {
    if (died_being_made(thrown)) return std::optional<Store>();
    if (!is_corrupt(thrown)) return fail(from_sqlite("open the state", thrown, file.string()));
    state->database.reset();
    state->notice = fmt::format(
        "the state file {} is unreadable ({}); the next change moves it aside and takes what runs then as the goal",
        file.string(), thrown.what());
  } catch (const std::exception& thrown) {
    return fail(from_sqlite("open the state", thrown, file.string()));
  }
  return std::optional<Store>(Store(std::move(state)));
}

namespace {

StoredSwitch read_switch(SQLite::Statement& row) {
  StoredSwitch stored;
  stored.id = row.getColumn(0).getInt64();
  stored.kind = row.getColumn(1).getString();
  const auto goal = [](const std::string& text) {
    std::error_code malformed;
    const auto value = json::parse(text, malformed);
    return malformed ? Goal() : goal_from_json(value).value_or(Goal());
  };
  stored.goal = goal(row.getColumn(2).getString());
  stored.previous = goal(row.getColumn(3).getString());
  stored.from = row.getColumn(4).getString();
  stored.mutated = row.getColumn(5).getInt() != 0;
  stored.failure = row.getColumn(6).getString();
  stored.boot_id = row.getColumn(7).getString();
  stored.result = row.getColumn(8).getString();
  stored.began = wall_time(row.getColumn(9).getInt64());
  if (!row.getColumn(10).isNull()) stored.ended = wall_time(row.getColumn(10).getInt64());
  stored.report = row.getColumn(11).getString();
  return stored;
}

constexpr auto switch_columns =
    "SELECT id, kind, goal, previous, from_mode, mutated, failure, boot_id, result, began, ended, report FROM "
    "switches ";

void write_switch(SQLite::Database& database, const StoredSwitch& about) {
  SQLite::Statement insert(
      database,
      "INSERT INTO switches (id, kind, goal, previous, from_mode, mutated, failure, boot_id, result, began, "
      "ended, report) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
      "previous = excluded.previous, mutated = excluded.mutated, failure = excluded.failure, "
      "result = excluded.result, ended = excluded.ended, report = excluded.report");
  insert.bind(1, about.id);
  insert.bind(2, about.kind);
  insert.bind(3, json::serialize(to_json(about.goal)));
  insert.bind(4, json::serialize(to_json(about.previous)));
  insert.bind(5, about.from);
  insert.bind(6, about.mutated ? 1 : 0);
  insert.bind(7, about.failure);
  insert.bind(8, about.boot_id);
  insert.bind(9, about.result);
  insert.bind(10, microseconds(about.began));
  if (about.ended) insert.bind(11, microseconds(*about.ended));
  insert.bind(12, about.report);
  insert.exec();
}

constexpr std::int64_t switches_of_all = 1000;

/// Ids have no gaps, so the number of the newest tells which are old; nothing has to be counted.
void let_go_of_old_switches(SQLite::Database& database, std::int64_t newest) {
  constexpr auto old =
      "id IN (SELECT id FROM switches WHERE id <= ? AND ended IS NOT NULL AND NOT EXISTS "
      "(SELECT 1 FROM recordings WHERE recordings.switch = switches.id) ORDER BY id LIMIT 200)";
  for (const auto& removal :
       {fmt::format("DELETE FROM commands WHERE switch IN (SELECT id FROM switches WHERE {})", old),
        fmt::format("DELETE FROM switches WHERE {}", old)}) {
    SQLite::Statement remove(database, removal);
    remove.bind(1, newest - switches_of_all);
    remove.exec();
  }
}

void write_goal(SQLite::Database& database, const Goal& goal) {
  SQLite::Statement insert(database,
                           "INSERT INTO goal (only_row, goal, set_at) VALUES (1, ?, ?) "
                           "ON CONFLICT (only_row) DO UPDATE SET goal = excluded.goal, set_at = excluded.set_at");
  insert.bind(1, json::serialize(to_json(goal)));
  insert.bind(2, microseconds(wall_now()));
  insert.exec();
}

}  // namespace

Result<std::optional<Goal>> Store::goal() const {
  if (!state_->database) return std::optional<Goal>();
  try {
    SQLite::Statement query(*state_->database, "SELECT goal FROM goal");
    if (!query.executeStep()) return std::optional<Goal>();
    std::error_code malformed;
    const auto value = json::parse(query.getColumn(0).getString(), malformed);
    if (malformed) return fail(ErrorCode::failed, "the stored goal is not JSON");
    return std::optional<Goal>(TRY(goal_from_json(value)));
  } catch (const std::exception& problem) {
    return fail(from_sqlite("read the goal", problem));
  }
}

Result<bool> Store::knows_nothing() const {
  if (!state_->database) return true;
  try {
    return state_->database->execAndGet("SELECT (SELECT count(*) FROM goal) + (SELECT count(*) FROM switches)")
               .getInt64() == 0;
  } catch (const std::exception& problem) {
    return fail(from_sqlite("read the journal", problem));
  }
}

Result<std::int64_t> Store::next_switch_id() const {
  try {
    return state_->database->execAndGet("SELECT COALESCE(MAX(id), 0) + 1 FROM switches").getInt64();
  } catch (const std::exception& problem) {
    return fail(from_sqlite("read the journal", problem));
  }
}

Result<void> Store::record_commands(const StoredSwitch& about, const std::vector<Command>& commands) {
  return in_transaction(*state_->database, "write the journal", [&] {
    write_switch(*state_->database, about);
    SQLite::Statement insert(*state_->database,
                             "INSERT INTO commands (switch, step, attempt, command, service, unit, text, issued) "
                             "VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    for (const auto& command : commands) {
      insert.reset();
      insert.bind(1, about.id);
      insert.bind(2, command.step);
      insert.bind(3, command.attempt);
      insert.bind(4, std::string(to_string(command.kind)));
      insert.bind(5, command.service);
      insert.bind(6, command.unit);
      insert.bind(7, command.text);
      insert.bind(8, microseconds(wall_now()));
      insert.exec();
    }
  });
}

Result<void> Store::end_switch(const StoredSwitch& about, const std::optional<Goal>& goal, bool closes_earlier) {
  TRY(in_transaction(*state_->database, "end the switch in the journal", [&] {
    write_switch(*state_->database, about);
    if (goal) write_goal(*state_->database, *goal);
    if (closes_earlier) {
      SQLite::Statement update(*state_->database,
                               "UPDATE switches SET ended = ?, result = 'interrupted' WHERE ended IS NULL AND id < ?");
      update.bind(1, microseconds(wall_now()));
      update.bind(2, about.id);
      update.exec();
    }
  }));
  // In a transaction of its own, a little at a time: on a full disk a switch can end, and the old ones stay.
  if (const auto gone = in_transaction(*state_->database, "let go of old switches",
                                       [&] { let_go_of_old_switches(*state_->database, about.id); });
      !gone)
    log_warning("old switches stay in the history: {}", gone.error().message);
  return {};
}

Result<void> Store::set_goal(const Goal& goal) {
  return in_transaction(*state_->database, "store the goal", [&] { write_goal(*state_->database, goal); });
}

Result<std::optional<StoredSwitch>> Store::unfinished() const {
  if (!state_->database) return std::optional<StoredSwitch>();
  try {
    SQLite::Statement query(*state_->database,
                            std::string(switch_columns) + "WHERE ended IS NULL ORDER BY id DESC LIMIT 1");
    if (!query.executeStep()) return std::optional<StoredSwitch>();
    return std::optional<StoredSwitch>(read_switch(query));
  } catch (const std::exception& problem) {
    return fail(from_sqlite("read the journal", problem));
  }
}

Result<std::vector<StoredSwitch>> Store::history(std::size_t limit) const {
  if (!state_->database) return std::vector<StoredSwitch>();
  try {
    SQLite::Statement query(*state_->database, std::string(switch_columns) + "ORDER BY id DESC LIMIT ?");
    query.bind(1, static_cast<std::int64_t>(limit));
    std::vector<StoredSwitch> rows;
    while (query.executeStep())
      rows.push_back(read_switch(query));
    return rows;
  } catch (const std::exception& problem) {
    return fail(from_sqlite("read the history", problem));
  }
}

Result<std::optional<StoredSwitch>> Store::switch_of(std::int64_t id) const {
  if (!state_->database) return std::optional<StoredSwitch>();
  try {
    SQLite::Statement query(*state_->database, std::string(switch_columns) + "WHERE id = ?");
    query.bind(1, id);
    if (!query.executeStep()) return std::optional<StoredSwitch>();
    return std::optional<StoredSwitch>(read_switch(query));
  } catch (const std::exception& problem) {
    return fail(from_sqlite("read the history", problem));
  }
}

namespace {

/// {"peak": BYTES, "steady": {"running": BYTES}, "microseconds": {"ready": N}}
std::string run_as_text(const Measurement& measured) {
  json::object run, steady, phases;
  if (measured.peak) run["peak"] = measured.peak->count();
  for (const auto& [residency, held] : measured.steady)
    steady[to_string(residency)] = held.count();
  for (const auto& [phase, took] : measured.phases)
    phases[to_string(phase)] = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
  run["steady"] = std::move(steady);
  run["microseconds"] = std::move(phases);
  return json::serialize(run);
}

/// Whatever it does not know or understand is left out.
void read_run(const std::string& text, Measurement& measured) {
  std::error_code malformed;
  const auto run = json::parse(text, malformed);
  if (malformed || !run.is_object()) return;
  const auto each = [&](const char* name, auto take) {
    const auto* members = run.get_object().if_contains(name);
    if (!members || !members->is_object()) return;
    for (const auto& [key, value] : members->get_object())
      if (value.is_int64()) take(key, value.get_int64());
  };
  if (const auto* peak = run.get_object().if_contains("peak"); peak && peak->is_int64())
    measured.peak = Bytes(peak->get_int64());
  each("steady", [&](std::string_view key, std::int64_t value) {
    if (const auto residency = residency_from(key)) measured.steady[*residency] = Bytes(value);
  });
  each("microseconds", [&](std::string_view key, std::int64_t value) {
    if (const auto phase = phase_from(key)) measured.phases[*phase] = std::chrono::microseconds(value);
  });
}

constexpr int runs_a_key = 20, keys_a_subject = 8, runs_of_all = 5000;

void let_go_of_the_oldest(SQLite::Database& database, const Measurement& newest) {
  SQLite::Statement runs(
      database,
      "DELETE FROM measurements WHERE subject = ?1 AND key = ?2 AND gpu = ?3 AND id NOT IN (SELECT id "
      "FROM measurements WHERE subject = ?1 AND key = ?2 AND gpu = ?3 ORDER BY id DESC LIMIT ?4)");
  runs.bind(1, newest.subject);
  runs.bind(2, newest.key);
  runs.bind(3, newest.gpu);
  runs.bind(4, runs_a_key);
  runs.exec();
  SQLite::Statement keys(database,
                         "DELETE FROM measurements WHERE subject = ?1 AND key NOT IN (SELECT key FROM measurements "
                         "WHERE subject = ?1 GROUP BY key ORDER BY max(id) DESC LIMIT ?2)");
  keys.bind(1, newest.subject);
  keys.bind(2, keys_a_subject);
  keys.exec();
}

}  // namespace

Result<void> Store::remember(const std::vector<Measurement>& measurements) {
  if (measurements.empty()) return {};
  auto& database = *state_->database;
  return in_unflushed_transaction(database, "remember what was measured", [&] {
    SQLite::Statement insert(database, "INSERT INTO measurements (subject, key, gpu, at, run) VALUES (?, ?, ?, ?, ?)");
    for (const auto& measured : measurements) {
      insert.reset();
      insert.bind(1, measured.subject);
      insert.bind(2, measured.key);
      insert.bind(3, measured.gpu);
      insert.bind(4, microseconds(measured.at));
      insert.bind(5, run_as_text(measured));
      insert.exec();
      let_go_of_the_oldest(database, measured);
    }
    SQLite::Statement all(
        database,
        "DELETE FROM measurements WHERE id <= (SELECT id FROM measurements ORDER BY id DESC LIMIT 1 OFFSET ?)");
    all.bind(1, runs_of_all);
    all.exec();
  });
}

std::vector<Measurement> Store::remembered(const std::map<std::string, std::string>& keys) const {
  std::vector<Measurement> found;
  if (!state_->database) return found;
  try {
    SQLite::Statement query(*state_->database,
                            "SELECT gpu, at, run FROM measurements WHERE subject = ? AND key = ? ORDER BY id DESC");
    for (const auto& [subject, key] : keys) {
      query.reset();
      query.bind(1, subject);
      query.bind(2, key);
      while (query.executeStep()) {
        Measurement measured;
        measured.subject = subject;
        measured.key = key;
        measured.gpu = query.getColumn(0).getString();
        measured.at = wall_time(query.getColumn(1).getInt64());
        read_run(query.getColumn(2).getString(), measured);
        found.push_back(std::move(measured));
      }
    }
  } catch (const std::exception&) {
    // A file of before measurements, or a damaged page: then nothing is known.
  }
  return found;
}

Result<std::size_t> Store::forget(const std::string& subject) {
  std::size_t gone = 0;
  TRY(in_transaction(*state_->database, "forget what was measured", [&] {
    SQLite::Statement remove(*state_->database, "DELETE FROM measurements WHERE subject = ?");
    remove.bind(1, subject);
    gone = static_cast<std::size_t>(remove.exec());
  }));
  return gone;
}

namespace {

/// Throws SQLite's exceptions, as the next does.
std::vector<StoredModel> read_models(SQLite::Database& database) {
  std::vector<StoredModel> models;
  if (!has_table(database, "models")) return models;
  SQLite::Statement row(database,
                        "SELECT id, source, path, hub_id, hub_file, facts, registered FROM models ORDER BY id");
  while (row.executeStep())
    models.push_back({row.getColumn(0).getString(), row.getColumn(1).getString(), row.getColumn(2).getString(),
                      row.getColumn(3).getString(), row.getColumn(4).getString(), row.getColumn(5).getString(),
                      wall_time(row.getColumn(6).getInt64())});
  return models;
}

/// False when its id is taken.
bool insert_model(SQLite::Database& database, const StoredModel& model) {
  SQLite::Statement insert(database,
                           "INSERT INTO models (id, source, path, hub_id, hub_file, facts, registered) "
                           "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING");
  insert.bind(1, model.id);
  insert.bind(2, model.source);
  insert.bind(3, model.path.string());
  insert.bind(4, model.hub_id);
  insert.bind(5, model.hub_file);
  insert.bind(6, model.facts);
  insert.bind(7, microseconds(model.registered));
  return insert.exec() > 0;
}

}  // namespace

Result<std::vector<StoredModel>> Store::models() const {
  if (!state_->database) return std::vector<StoredModel>();
  try {
    return read_models(*state_->database);
  } catch (const std::exception& problem) {
    return fail(from_sqlite("read the registered models", problem));
  }
}

Result<bool> Store::add_model(const StoredModel& model) {
  bool added = false;
  TRY(in_transaction(*state_->database, "register a model", [&] { added = insert_model(*state_->database, model); }));
  return added;
}

Result<void> Store::add_models(const ChooseModels& choose) {
  return in_transaction(*state_->database, "register models", [&] {
    for (const auto& model : choose(read_models(*state_->database)))
      insert_model(*state_->database, model);
  });
}

Result<bool> Store::remove_model(const std::string& id) {
  int removed = 0;
  TRY(in_transaction(*state_->database, "remove a model's record", [&] {
    SQLite::Statement erase(*state_->database, "DELETE FROM models WHERE id = ?");
    erase.bind(1, id);
    removed = erase.exec();
  }));
  return removed > 0;
}

Result<void> Store::set_durable(bool durable) {
  try {
    state_->database->exec(durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = OFF");
  } catch (const std::exception& problem) {
    return fail(from_sqlite("set durability", problem));
  }
  return {};
}

}  // namespace gpumod
