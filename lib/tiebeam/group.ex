defmodule Tiebeam.Group do
  @moduledoc """
  Groups of processes, the same on every node of the cluster, BEAM or Rust.

      iex> Tiebeam.Group.join(MyApp.Cluster, "workers", self())
      :ok
      iex> Tiebeam.Group.members(MyApp.Cluster, "workers") == [self()]
      true
      iex> Tiebeam.Group.publish(MyApp.Cluster, "workers", :tick)
      :ok
      iex> receive do: (:tick -> :heard)
      :heard

  A process is in a group once, and in as many groups as it likes. A group is there while it has members. What a name, metadata
  and a scope are, and the errors, is said in `Tiebeam.Registry`; groups and names of one scope have nothing to do with each other
  but the limit on a node's entries.

  ## Consistency

  Each node is the authority for the memberships of its processes. Look-ups read a table of this node and never wait: what this
  node did is there when it is answered, and the other nodes show it about a round trip later. There are no conflicts. A process
  that ends is in no group any more, on all nodes; the members of a node that is down are out until it comes back.
  """

  import Tiebeam.Registry, only: [local: 1, options!: 2, read: 2, request: 5, request: 4, scope!: 1]

  alias Tiebeam.{Leadership, Registry, Table}

  # Members that one `call/4` asks at a time: each is a monitor, and an answer that may come at the same moment as all others.
  @max_asked 1_000

  @max_timeout 0xFFFFFFFF

  @doc """
  Makes a process of this node a member of a group; one that is gets the new metadata. The option is `:scope`.

  Blocks for the time of a call, at most five seconds, then exits like `GenServer.call/2`.

      iex> Tiebeam.Group.join(MyApp.Cluster, {:shard, 3}, self(), %{weight: 2})
      :ok
      iex> Tiebeam.Group.lookup(MyApp.Cluster, {:shard, 3}) == [{self(), %{weight: 2}}]
      true
  """
  @spec join(Tiebeam.name(), Registry.name(), pid, Registry.metadata(), keyword) ::
          :ok | {:error, Registry.error()}
  def join(cluster, group, pid, metadata \\ nil, options \\ []) when is_pid(pid) do
    options = options!(options, [:scope])

    with :ok <- local(pid),
         {:ok, request} <- request(:join, options[:scope] || :default, group, pid, metadata),
         do: Registry.call(cluster, request)
  end

  @doc """
  Takes a process of this node out of a group. The option is `:scope`. Blocks as `join/5`.

      iex> Tiebeam.Group.leave(MyApp.Cluster, "strangers", self())
      {:error, :unknown}
  """
  @spec leave(Tiebeam.name(), Registry.name(), pid, keyword) :: :ok | {:error, Registry.error()}
  def leave(cluster, group, pid, options \\ []) when is_pid(pid) do
    with :ok <- local(pid),
         {:ok, request} <- request(:leave, scope!(options), group, pid),
         do: Registry.call(cluster, request)
  end

  @doc """
  The members of a group on all nodes, as far as this node knows. Never waits. Options: `:scope`, and `:hide_suspect`, which leaves out
  those whose node is a suspect (default: `false`).
  """
  @spec members(Tiebeam.name(), Registry.name(), keyword) :: [pid]
  def members(cluster, group, options \\ []) do
    options = options!(options, [:scope, :hide_suspect])
    cluster |> select(options[:scope] || :default, group, :_, :_, :"$1") |> shown(cluster, options)
  end

  @doc "As `members/3`, but only those that this node answers for. The option is `:scope`."
  @spec local_members(Tiebeam.name(), Registry.name(), keyword) :: [pid]
  def local_members(cluster, group, options \\ []) do
    select(cluster, scope!(options), group, :_, node(), :"$1")
  end

  @doc "The members of a group with their metadata; as `members/3`."
  @spec lookup(Tiebeam.name(), Registry.name(), keyword) :: [{pid, Registry.metadata()}]
  def lookup(cluster, group, options \\ []) do
    options = options!(options, [:scope, :hide_suspect])
    rows = select(cluster, options[:scope] || :default, group, :"$2", :_, {{:"$1", :"$2"}})
    shown(rows, cluster, options, &elem(&1, 0))
  end

  @doc """
  The groups of a scope that have members, as far as this node knows, in no order. The option is `:scope`. Reads the whole table.
  """
  @spec groups(Tiebeam.name(), keyword) :: [Registry.name()]
  def groups(cluster, options \\ []) do
    cluster |> select([{{{scope!(options), :"$1", :_}, :_, :_}, [], [:"$1"]}]) |> Enum.uniq()
  end

  @doc """
  Sends a message to all members of a group that this node knows of, itself included. The options are those of `members/3`.

  Nobody says whether it arrived; `call/4` asks for answers. Best effort, as `Kernel.send/2`: nothing is kept for who joins later, and it blocks while the link to a member is busy.
  """
  @spec publish(Tiebeam.name(), Registry.name(), message :: term, keyword) :: :ok
  def publish(cluster, group, message, options \\ []) do
    for pid <- members(cluster, group, options), do: send(pid, message)
    :ok
  end

  @doc """
  Asks all members of a group that this node knows of, as `GenServer.call/3` does, and answers what each replied or why it did not: a message with
  acknowledgements. Members are asked at the same time, at most 1,000 of them; nothing is sent twice.

  Blocks until all have answered or failed, at most for the option `:timeout` (milliseconds, default 5,000); the others are those of `members/3`.
  A reply that comes later is dropped. A member that is a `GenServer` and asks its own group does not answer itself.

  - `{:error, :timeout}` - no answer in time; the request may have been handled, or be yet.
  - `{:error, :noproc}`, `{:error, {:down, reason}}` - the process was not there, or ended, or its node was lost, before it answered.

      iex> members = for n <- 1..2, do: elem(Agent.start_link(fn -> n end), 1)
      iex> for member <- members, do: Tiebeam.Group.join(MyApp.Cluster, "answering", member)
      iex> for {member, {:ok, n}} <- Tiebeam.Group.call(MyApp.Cluster, "answering", {:get, & &1}), do: Enum.at(members, n - 1) == member
      [true, true]
  """
  @spec call(Tiebeam.name(), Registry.name(), request :: term, keyword) ::
          [{pid, {:ok, reply :: term} | {:error, :timeout | :noproc | {:down, reason :: term}}}]
  def call(cluster, group, request, options \\ []) do
    {timeout, options} = options |> Leadership.keyword!() |> Keyword.pop(:timeout, 5_000)

    unless is_integer(timeout) and timeout in 0..@max_timeout do
      raise ArgumentError, "the option :timeout must be milliseconds, got: #{inspect(timeout)}"
    end

    case members(cluster, group, options) do
      [] -> []
      members -> ask(members, request, System.monotonic_time(:millisecond) + timeout)
    end
  end

  # Another process asks: a link that is busy holds that one up, and late replies go to it.
  defp ask(members, request, deadline) do
    {caller, reference} = {self(), make_ref()}

    {asker, monitor} =
      spawn_monitor(fn ->
        {first, waiting} = Enum.split(members, @max_asked)
        asked = Enum.reduce(first, :gen_server.reqids_new(), &:gen_server.send_request(&1, request, &1, &2))
        pass_on({caller, reference}, asked, waiting, request, deadline)
      end)

    answers = collect({reference, asker, monitor}, %{}, deadline)
    for member <- members, do: {member, Map.get(answers, member, {:error, :timeout})}
  end

  defp pass_on({caller, reference} = to, asked, waiting, request, deadline) do
    case :gen_server.receive_response(asked, {:abs, deadline}, true) do
      {answer, member, asked} ->
        send(caller, {reference, member, answer(answer)})
        {next, waiting} = Enum.split(waiting, 1)
        asked = Enum.reduce(next, asked, &:gen_server.send_request(&1, request, &1, &2))
        pass_on(to, asked, waiting, request, deadline)

      done_or_late when done_or_late in [:no_request, :timeout] ->
        :ok
    end
  end

  defp answer({:reply, reply}), do: {:ok, reply}
  defp answer({:error, {:noproc, _member}}), do: {:error, :noproc}
  defp answer({:error, {reason, _member}}), do: {:error, {:down, reason}}

  # Until the asker has ended: its answers come before that.
  defp collect({reference, asker, monitor} = from, answers, deadline) do
    receive do
      {^reference, member, answer} -> collect(from, Map.put(answers, member, answer), deadline)
      {:DOWN, ^monitor, :process, ^asker, _reason} -> answers
    after
      left(deadline) ->
        Process.exit(asker, :kill)
        collect(from, answers, :infinity)
    end
  end

  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)

  # Without those that are not to be seen; `pid` takes the process out of an element.
  defp shown(members, cluster, options, pid \\ & &1) do
    if options[:hide_suspect],
      do: Enum.reject(members, &Table.suspect?(cluster, node(pid.(&1)))),
      else: members
  end

  # The table is ordered by scope and group: a pattern that begins with both reads no other rows.
  defp select(cluster, scope, group, meta, owner, result) do
    if variable?(group),
      do:
        select(cluster, [{{{scope, :"$3", :"$1"}, meta, owner}, [{:"=:=", :"$3", {:const, group}}], [result]}]),
      else: select(cluster, [{{{scope, group, :"$1"}, meta, owner}, [], [result]}])
  end

  # Whether a pattern would take a part of it for a variable.
  defp variable?(group) when is_atom(group),
    do: group == :_ or String.starts_with?(Atom.to_string(group), "$")

  defp variable?(group) when is_tuple(group), do: group |> Tuple.to_list() |> Enum.any?(&variable?/1)
  defp variable?([first | rest]), do: variable?(first) or variable?(rest)
  defp variable?(_group), do: false

  defp select(cluster, spec) do
    groups = Table.groups_of(cluster)
    read(cluster, fn -> :ets.select(groups, spec) end)
  end

  @doc false
  # The rows of a group, or of all: `{group, pid, metadata, owner}`.
  def rows(cluster, scope, :any),
    do: select(cluster, [{{{scope, :"$1", :"$2"}, :"$3", :"$4"}, [], [{{:"$1", :"$2", :"$3", :"$4"}}]}])

  def rows(cluster, scope, {:name, group}) do
    for {pid, meta, owner} <- select(cluster, scope, group, :"$2", :"$4", {{:"$1", :"$2", :"$4"}}),
        do: {group, pid, meta, owner}
  end
end
