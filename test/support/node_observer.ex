defmodule Support.NodeObserver do
  @moduledoc "What tests run on a peer; above all a process that writes down nodeups and nodedowns, in order."

  @doc "Starts watching; the peer's visible connections of before are not told."
  def start do
    caller = self()

    pid =
      spawn(fn ->
        :ok = :net_kernel.monitor_nodes(true)
        send(caller, :watching)
        loop([])
      end)

    receive do: (:watching -> pid)
  end

  @doc "What happened since `start` or `forget`, oldest first."
  def events(pid), do: ask(pid, :events)
  def forget(pid), do: ask(pid, :forget)

  @doc "Why a `gen_server` call made on the peer fails, or `{:answered, reply}`."
  def call_reason(destination, request) do
    {:answered, GenServer.call(destination, request, 10_000)}
  catch
    :exit, {reason, {GenServer, :call, _}} -> reason
  end

  @doc "Starts a process that writes to `leader` and ends with an error."
  def crash(leader, reason) do
    spawn(fn ->
      Process.group_leader(self(), leader)
      :erlang.error(reason)
    end)
  end

  defp ask(pid, what) do
    send(pid, {what, self()})
    receive do: ({^pid, answer} -> answer)
  end

  defp loop(events) do
    receive do
      {event, node} when event in [:nodeup, :nodedown] ->
        loop([{event, node} | events])

      {:events, from} ->
        send(from, {self(), Enum.reverse(events)})
        loop(events)

      {:forget, from} ->
        send(from, {self(), :ok})
        loop([])
    end
  end
end
