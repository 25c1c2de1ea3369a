defmodule Support.PhaseKiller do
  @moduledoc """
  What tests run on a BEAM peer to kill another node at a certain moment of their talk: when a certain word of `global` has come
  from it and is not read yet, or has just been sent to it.
  """

  @doc """
  Starts to wait for a word (`:set_lock`, `:lock_set`, ...) that is `:received` from `node` or `:sent` to it; then kills the program
  `os_pid`. The answered pid is for `killed?/1`.
  """
  def start(direction, word, node, os_pid) do
    caller = self()
    pid = spawn(fn -> prepare(caller, {direction, word, node}, os_pid) end)
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

  defp prepare(caller, moment, os_pid) do
    server = Process.whereis(:global_name_server)
    # A program that only waits to be told kills sooner than one that must be started first.
    shell =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        args: ["-c", "read x; kill -KILL #{os_pid}; echo done"]
      ])

    # The locker and the registrar are linked to the server, and send through processes of their own.
    {:links, links} = Process.info(server, :links)
    for pid <- [server | links], is_pid(pid), do: :erlang.trace(pid, true, [:send, :set_on_spawn])
    :erlang.trace(server, true, [:receive])
    send(caller, {:ready, self()})
    wait(moment, shell, server)
  end

  defp wait(moment, shell, server) do
    receive do
      {:trace, ^server, :receive, message} ->
        if received(message) == moment, do: kill(shell, server), else: wait(moment, shell, server)

      {:trace, _, :send, message, to} ->
        if sent(message, to) == moment, do: kill(shell, server), else: wait(moment, shell, server)

      {:killed?, from} ->
        send(from, {self(), false})
        wait(moment, shell, server)

      _ ->
        wait(moment, shell, server)
    end
  end

  defp kill(shell, server) do
    :erlang.suspend_process(server)
    Port.command(shell, "\n")
    receive do: ({^shell, {:data, _}} -> :ok)
    :erlang.resume_process(server)
    :erlang.trace(:all, false, [:send, :receive, :set_on_spawn])
    receive do: ({:killed?, from} -> send(from, {self(), true}))
  end

  defp received(message) do
    with {word, node} <- word(message), do: {:received, word, node}
  end

  # To names, but for the locker's answer to another locker and to a call.
  defp sent(message, {:global_name_server, node}),
    do: with({word, _} <- word(message), do: {:sent, word, node})

  defp sent(_, _), do: :other

  defp word({:"$gen_call", {from, _}, {request, _}}) when is_pid(from), do: {request, node(from)}
  defp word({:"$gen_cast", {:lock_set, locker, _, _, _}}), do: {:lock_set, node(locker)}
  defp word({:"$gen_cast", {:init_connect, _, node, _}}), do: {:init_connect, node}
  defp word({:"$gen_cast", cast}) when tuple_size(cast) > 1, do: {elem(cast, 0), elem(cast, 1)}
  defp word({word, node, _, _}) when is_atom(word), do: {word, node}
  defp word(_), do: :other
end
