// The modelled store: what a transaction has made durable, and nothing else. Its queries mean what store/ makes them
// mean.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "model/switching.h"

namespace gpumod::simulation {

struct JournalRow {
  std::int64_t id = 0;
  std::string kind;
  Goal goal;
  Goal previous;
  bool mutated = false;
  std::string failure;
  std::string boot_id;
  bool ended = false;
  struct Line {
    Command::Kind kind;
    int step;
    int attempt;
  };
  std::vector<Line> commands;
};

class Journal {
 public:
  std::optional<Goal> goal;

  std::int64_t next_id() const { return rows_.empty() ? 1 : rows_.back().id + 1; }
  void write(const JournalRow& about) {
    if (auto* row = find(about.id))
      *row = about;
    else
      rows_.push_back(about);
  }
  void end(JournalRow about, const std::optional<Goal>& reached, bool closes_earlier) {
    about.ended = true;
    write(about);
    if (reached) goal = reached;
    if (closes_earlier)
      for (auto& row : rows_)
        row.ended = true;
  }
  const JournalRow* unfinished() const {
    for (auto row = rows_.rbegin(); row != rows_.rend(); ++row)
      if (!row->ended) return &*row;
    return nullptr;
  }
  const JournalRow* row(std::int64_t id) const { return const_cast<Journal*>(this)->find(id); }

 private:
  JournalRow* find(std::int64_t id) {
    const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const JournalRow& row) { return row.id == id; });
    return found == rows_.end() ? nullptr : &*found;
  }
  std::vector<JournalRow> rows_;
};

}  // namespace gpumod::simulation
