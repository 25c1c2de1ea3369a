defmodule Support.Aftermath do
  @moduledoc """
  What a cluster ends in after something befell it, as data that can be compared: nodes are called by their roles.

  Survivors are a keyword list from roles to targets, or to peers that are steered past distribution.
  """
  alias Support.{Beam, Target}

  @doc "How often each test does its thing: `TIEBEAM_KILL_ROUNDS`."
  def rounds, do: "TIEBEAM_KILL_ROUNDS" |> System.get_env("1") |> String.to_integer()

  @doc "The kinds of U: a cluster of BEAMs is always among them, to compare with."
  def kinds, do: Enum.uniq([:beam | Target.kinds()])

  @doc "Writes down how often what happened, where more than one round is asked for."
  def count(thing, kind, outcome) do
    if rounds() > 1, do: IO.puts("ended: #{inspect(thing)} #{kind} #{inspect(outcome)}")
  end

  @doc """
  The state of every survivor, once it has stayed the same for `quiet` milliseconds, no lock is left and no name of the dead: a keyword
  list from roles to

    * `:nodes`: with whom it is connected,
    * `:known`: whom its `global` knows,
    * `:names`: which of `names` it sees, and with whom,
    * `:locks`: the table of locks.

  A lock or a name that stays is in the answer, after `timeout` milliseconds. `roles` tells the role of every node, also of the dead.
  """
  def settled(survivors, roles, names, quiet \\ 1_000, timeout \\ 20_000) do
    settled(survivors, roles, names, quiet, System.monotonic_time(:millisecond) + timeout, nil)
  end

  defp settled(survivors, roles, names, quiet, deadline, before) do
    now = for {role, target} <- survivors, do: {role, state(target, roles, names)}

    clean? =
      Enum.all?(now, fn {_, seen} ->
        seen.locks == [] and Enum.all?(seen.names, fn {_, owner} -> survivors[owner] end)
      end)

    if (now == before and clean?) or System.monotonic_time(:millisecond) > deadline do
      now
    else
      Process.sleep(quiet)
      settled(survivors, roles, names, quiet, deadline, now)
    end
  end

  @doc """
  The same, once the survivors are connected in one of `ways`: keyword lists from roles to whom they are connected with. What they were
  instead is told when that does not come true.
  """
  def ended(survivors, roles, names, ways, timeout \\ 60_000) do
    ended(survivors, roles, names, ways, timeout, System.monotonic_time(:millisecond) + timeout)
  end

  defp ended(survivors, roles, names, ways, timeout, deadline) do
    # Longer than the pauses in which OTP's locker waits for its turn.
    now = settled(survivors, roles, names, 4_000)
    seen = for {role, %{nodes: nodes}} <- now, do: {role, nodes}

    cond do
      seen in ways ->
        now

      System.monotonic_time(:millisecond) > deadline ->
        ExUnit.Assertions.flunk("""
        not one of #{inspect(ways)} within #{timeout} ms:
        #{inspect(now, pretty: true)}
        """)

      true ->
        ended(survivors, roles, names, ways, timeout, deadline)
    end
  end

  defp state(target, roles, names) do
    %{
      nodes: named(ask(target, :erlang, :nodes, []), roles),
      known: named(known(target), roles),
      names:
        for(
          name <- names,
          pid = ask(target, :global, :whereis_name, [name]),
          is_pid(pid),
          do: {name, roles[node(pid)]}
        ),
      locks: ask(target, :ets, :tab2list, [:global_locks])
    }
  end

  # The tests' own node has no role.
  defp named(nodes, roles), do: for(node <- nodes, role = roles[node], do: role) |> Enum.sort()

  @doc "The nodes that the `global` of a target or peer knows."
  def known(%Target{} = target), do: Support.Mesh.known(target)
  def known(peer), do: Beam.on(peer, :gen_server, :call, [:global_name_server, :get_known, 20_000])

  defp ask(%Target{} = target, module, function, args), do: Target.on(target, module, function, args)
  defp ask(peer, module, function, args), do: Beam.on(peer, module, function, args)

  @doc "Who knows whom and is connected with him, if that is the same from all sides: lists of roles. Otherwise the views as they are."
  def partitions(outcome) do
    views =
      for {role, seen} <- outcome, do: {role, Enum.sort([role | seen.known]), Enum.sort([role | seen.nodes])}

    groups = views |> Enum.map(&elem(&1, 1)) |> Enum.uniq() |> Enum.sort()

    if Enum.all?(views, fn {_, known, nodes} -> known == nodes end) and
         Enum.sort(List.flatten(groups)) == outcome |> Keyword.keys() |> Enum.sort(),
       do: groups,
       else: {:views, outcome}
  end

  @doc "Whether each survivor can still register a name: `global` has to get its lock from all whom it knows."
  def registers?(survivors) do
    Enum.all?(survivors, fn {role, target} ->
      name = {:after_all, role}
      {answer, _} = ask(target, :fixture, :global_register, [name])
      ask(target, :fixture, :global_unregister, [name])
      answer == :yes
    end)
  end
end
