defmodule Support.PhaseKiller do
  @moduledoc """
  What tests run on a BEAM peer to kill another node at a certain moment of their talk: when a certain message has reached the peer's
  `global_name_server`, and before it is read.
  """

  @doc """
  Starts to wait for a message of a kind (`:set_lock`, `:lock_set`, ...) from `node`; then kills the program `os_pid`. The answered
  pid is for `killed?/1`.
  """
  def start(kind, node, os_pid) do
    caller = self()

    pid =
      spawn(fn ->
        server = Process.whereis(:global_name_server)
        1 = :erlang.trace(server, true, [:receive])
        send(caller, {:ready, self()})
        wait(kind, node, os_pid, server)
      end)

    receive do: ({:ready, ^pid} -> pid)
  end

  def killed?(pid) do
    send(pid, {:killed?, self()})

    receive do
      {^pid, killed} -> killed
    after
      5_000 -> :no_answer
    end
  end

  defp wait(kind, node, os_pid, server) do
    receive do
      {:trace, ^server, :receive, message} ->
        if kind(message) == {kind, node} do
          :erlang.suspend_process(server)
          System.cmd("kill", ["-KILL", os_pid])
          :erlang.trace(server, false, [:receive])
          :erlang.resume_process(server)
          answer(true)
        else
          wait(kind, node, os_pid, server)
        end

      {:killed?, from} ->
        send(from, {self(), false})
        wait(kind, node, os_pid, server)
    end
  end

  defp answer(killed) do
    receive do
      {:killed?, from} ->
        send(from, {self(), killed})
        answer(killed)
    end
  end

  defp kind({:"$gen_call", {from, _}, {request, _}}) when is_pid(from), do: {request, node(from)}
  defp kind({:"$gen_cast", {:lock_set, locker, _, _, _}}), do: {:lock_set, node(locker)}
  defp kind({:"$gen_cast", {:init_connect, _, node, _}}), do: {:init_connect, node}
  defp kind({:"$gen_cast", cast}) when tuple_size(cast) > 1, do: {elem(cast, 0), elem(cast, 1)}
  defp kind({kind, node, _, _}), do: {kind, node}
  defp kind(_), do: :other
end
