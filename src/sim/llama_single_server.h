// The server with one model, as an object: its life (llama_single.cpp) and what it is asked (llama_questions.cpp). For
// these two files alone; llama_single.h says what they do.
#pragma once

#include <deque>

#include "sim/llama_loading.h"
#include "sim/llama_status.h"

namespace gpumod::sim {

class LlamaSingle {
 public:
  LlamaSingle(Loop& loop, LlamaSettings settings, bool is_child)
      : loop_(loop), settings_(std::move(settings)), is_child_(is_child) {}
  Task<void> live();

 private:
  /// A request's place in the queue and at a slot; its end frees both.
  struct Ticket {
    explicit Ticket(LlamaSingle& of) : server(of) { ++server.in_flight_; }
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    ~Ticket() {
      --server.in_flight_;
      server.idle_since_ = now();
      if (slot) slot->busy = false;
      server.slot_freed_.set();
    }
    LlamaSingle& server;
    LlamaSlot* slot = nullptr;
  };
  using Shared = std::shared_ptr<LlamaTelling>;

  // llama_single.cpp
  void open_gpu();
  void name_model();
  [[noreturn]] void give_up_loading();
  void report(boost::json::object what) const;
  Task<bool> load();
  Task<void> wake();
  Task<void> watch_idleness();
  void be_told_to_end(bool by_router);
  Task<void> end();

  // llama_questions.cpp
  Task<ServerReply> handle(ServerRequest request);
  Task<ServerReply> route(ServerRequest request);
  Task<ServerReply> answer(LlamaQuestion::Kind kind, ServerRequest request);
  Task<ServerReply> embed(ServerRequest request, bool native);
  Task<ServerReply> slots();
  enum class Pick { first, least_recent };
  LlamaSlot* free_slot(Pick pick);
  void mark(LlamaSlot& slot);
  Task<std::shared_ptr<Ticket>> take_slot(Pick pick);
  Task<void> tell(Shared telling, std::shared_ptr<Ticket> ticket, ServerReply::Write write);
  /// False when the client has left meanwhile. No return once the process is to end: who is still asking then has no
  /// answer, and keeps the process (see llama_single.h).
  Task<bool> pass(TimePoint until, std::function<bool()> has_left);
  Task<void> hang();
  bool is_wedged() const;
  void count(const LlamaTelling& telling);
  TimePoint said_by(TimePoint start, const LlamaTelling& telling, std::size_t token) const;

  Loop& loop_;
  LlamaSettings settings_;
  bool is_child_;
  std::vector<std::string> keys_;
  LlamaModel model_;
  LlamaIdentity identity_;
  std::optional<Gpu> gpu_;
  LlamaPlacement placement_;
  std::unique_ptr<HttpServer> server_;
  std::deque<LlamaSlot> slots_;
  LlamaCounters counters_;
  int in_flight_ = 0;
  int tasks_ = 0;
  int questions_ = 0;
  bool loaded_ = false;
  bool asleep_ = false;
  bool waking_ = false;
  bool ending_ = false;
  TimePoint idle_since_;
  Signal slot_freed_{loop_};
  Signal awake_{loop_};
  Signal never_{loop_};
};

}  // namespace gpumod::sim
