defmodule Tiebeam.Leader do
  @moduledoc """
  One leader among the nodes of a cluster, BEAM or Rust.

  The nodes that vote are named when the cluster starts:

      {Tiebeam, name: MyApp.Cluster, voters: [:"a@h1", :"b@h2", :"rust@h3"]}

  or counted (`expect: 3`). All other nodes that name them follow. They agree by Raft: with more than half of the voters there
  is a leader, and with fewer there is none. Who votes is never guessed from who seems to be alive.

      iex> {:ok, node, term} = Tiebeam.Leader.await(MyApp.Cluster)
      iex> node == node() and term > 0
      true

  ## Who may act

  `leader/1` says who leads as far as this node knows, which may be a little old. `leader?/1` is exact: `{:ok, token}` on at
  most one node at any instant, if the clocks of the nodes run alike. The node was confirmed by more than half of the voters,
  and nobody else can be before what it was granted is over. A process may still be held up between asking and acting; so what
  it acts upon should refuse tokens that are less than the greatest it has seen. The token is the term: each leader has a
  greater one than all before.

  `with_leadership/2` runs a function for as long as this holds.

  ## Outcomes

  All functions of this module, `Tiebeam.KV` and `Tiebeam.Lock` that ask the group answer in the time of their option
  `:timeout` (milliseconds, default 5,000). Any node may ask: the question goes to the leader and is repeated when leaders
  change, and is done once.

  | `{:error, reason}` | what is true | what to do |
  |---|---|---|
  | `:no_quorum` | no majority could be reached in time; nothing was done | try again later |
  | `{:not_founded, missing}` | there is no group yet: it begins once all of these nodes, or with `:expect` so many more, are here; nothing was done | start them, connect them, and give all the same `:voters` |
  | `{:no_replica, limit}` | the group has as many members as it may, 255, and this node is none of them; nothing was done | ask a member, [as any node may](#module-from-other-nodes), or stop one |
  | `{:no_member, node}` | of `add_voter/3` and its like: the node takes no part in the group, as far as the leader knows; nothing was done | start it with `:voters` and connect it |
  | `:unknown` | nothing was heard in time: it may be done, or be done later | read before it is repeated |
  | `:no_group` | this node was started without `:voters` and `:expect` | name the voters |
  | `{:busy, limit}` | so much waits already; nothing was done | try again later |
  | `{:too_long, part, bytes, limit}` | a key, value or name has too many bytes; nothing was done | |
  | `{:full, what}` | a limit of the group would be exceeded; nothing was done | delete something |
  | `:stopped`, `:left` | this node takes no part any more | see the log; restart the cluster on this node |

  ## Without a disk

  With `data_dir: :memory`, the default, a node keeps nothing when its VM ends, or when the cluster's server crashes: it
  returns as a new member, gets everything from the others, and takes the place of its old self. While more than half of the
  voters go on nothing is lost; when more than half end at once all is lost, and the group begins anew, with tokens from 1.
  With a path it survives that.

  ## From other nodes

  Any node, with the package or without, asks any member, BEAM or Rust: `GenServer.call({:tiebeam, node}, request)`.

  | request | reply |
  |---|---|
  | `:leader` | `{:ok, node, term}`, `:none` |
  | `:step_down`, `{:step_down, node}` | `{:ok, term}`, `{:error, reason}` |
  | `{:subscribe_leader, pid}`, `{:unsubscribe_leader, pid}` | `:ok`, `{:error, reason}`; see `subscribe/1` |
  | `{:kv, :put, key, value}` | `{:ok, revision}`, `{:error, reason}` |
  | `{:kv, :get, key}` | `{:ok, value, revision}`, `:not_found`, `{:error, reason}` |
  | `{:kv, :delete, key}` | `{:ok, revision}`, `{:error, reason}` |
  | `{:kv, :list, prefix}` | `{:ok, [{key, value, revision}]}`, `{:error, reason}` |
  | `:locks` | a list of `{name, token, pid, metadata}` |
  """

  alias Tiebeam.{Leadership, Table}
  alias Tiebeam.Leadership.Guard

  @typedoc "A number that only grows: each leader's is greater than those of all before."
  @type token :: pos_integer

  @typedoc "Why nothing was done, or why it is not known: see [Outcomes](#module-outcomes)."
  @type error ::
          :no_quorum
          | {:not_founded, missing :: [node] | pos_integer}
          | {:no_replica, limit :: pos_integer}
          | :unknown
          | :no_group
          | {:busy, limit :: pos_integer}
          | {:too_long, part :: atom, bytes :: pos_integer, limit :: pos_integer}
          | {:full, :sessions | :outstanding | :store | :claims}
          | :stopped
          | :left

  @typedoc """
  A node's part in the group. `:heard` says whether the leader heard of it within an election timeout, `:matched` up to which
  entry it has the log; both are `nil` unless the answer is the leader's own. `:member` is its identity: a node that lost its
  disk has another one.
  """
  @type member :: %{
          node: node,
          member: non_neg_integer,
          voter: boolean,
          heard: boolean | nil,
          matched: non_neg_integer | nil
        }

  @typedoc "The message of `subscribe/1`."
  @type message ::
          {:tiebeam, Tiebeam.name() | String.t(),
           {:leader, node | nil, term :: non_neg_integer} | {:stopped, :disk | :fault | :left}}

  @doc """
  Whether this node leads, at this instant. The token goes with everything that is done because of the answer.

  Exact; reads a table and a clock, and never waits.

      iex> {:ok, _node, term} = Tiebeam.Leader.await(MyApp.Cluster)
      iex> Tiebeam.Leader.with_leadership(MyApp.Cluster, fn token -> token == term end)
      {:ok, true}
      iex> Tiebeam.Leader.leader?(MyApp.Cluster) == {:ok, term}
      true
  """
  @spec leader?(Tiebeam.name()) :: {:ok, token} | false
  def leader?(cluster) do
    case Table.lease(cluster) do
      {term, until} -> if System.monotonic_time(:microsecond) < until, do: {:ok, term}, else: false
      nil -> false
    end
  end

  @doc """
  Who leads, as far as this node knows: a hint, which may be a little old and decides nothing. Reads a table and never waits.

      iex> {:ok, node, _term} = Tiebeam.Leader.leader(MyApp.Cluster)
      iex> node == node()
      true
  """
  @spec leader(Tiebeam.name()) :: {:ok, node, term :: token} | :none
  def leader(cluster) do
    case Table.leader(cluster) do
      {nil, _term} -> :none
      {node, term} -> {:ok, node, term}
    end
  end

  @doc """
  The latest term that this node knows, 0 before the first one. Reads a table and never waits.
  """
  @spec term(Tiebeam.name()) :: non_neg_integer
  def term(cluster), do: cluster |> Table.leader() |> elem(1)

  @doc """
  Waits until this node knows a leader, at most so many milliseconds.

      iex> {:ok, _node, _term} = Tiebeam.Leader.await(MyApp.Cluster, 30_000)
  """
  @spec await(Tiebeam.name(), timeout) :: {:ok, node, term :: token} | {:error, :timeout | :no_group}
  def await(cluster, timeout \\ 5_000) do
    with :none <- leader(cluster) do
      # A process of its own has the messages.
      {pid, monitor} = spawn_monitor(fn -> exit({:leader, wait(cluster)}) end)

      receive do
        {:DOWN, ^monitor, :process, _pid, {:leader, answer}} -> answer
        {:DOWN, ^monitor, :process, _pid, reason} -> exit(reason)
      after
        timeout ->
          Process.exit(pid, :kill)
          Process.demonitor(monitor, [:flush])
          {:error, :timeout}
      end
    end
  end

  defp wait(cluster) do
    with :ok <- subscribe(cluster) do
      receive do
        {:tiebeam, ^cluster, {:leader, node, term}} when node != nil -> {:ok, node, term}
      end
    end
  end

  @doc """
  Sends the calling process `{:tiebeam, cluster, {:leader, node, term}}` now and whenever it changes, until it ends. `node` is
  `nil` while no leader is known.

  Terms never go back while the cluster's server runs. If this node stops to take part, because its disk fails or it left,
  `{:tiebeam, cluster, {:stopped, reason}}` comes as well.

  A process of another node subscribes by `GenServer.call({:tiebeam, node}, {:subscribe_leader, self()})`; in its messages the
  cluster is its identity, a string.

      iex> Tiebeam.Leader.subscribe(MyApp.Cluster)
      iex> me = node()
      iex> receive do: ({:tiebeam, MyApp.Cluster, {:leader, ^me, _term}} -> :leads)
      :leads
  """
  @spec subscribe(Tiebeam.name()) :: :ok | {:error, :no_group}
  def subscribe(cluster), do: GenServer.call(Table.process(cluster), {:subscribe_leader, self()})

  @doc "Ends the subscription of the calling process. What was sent before may still be in its mailbox."
  @spec unsubscribe(Tiebeam.name()) :: :ok
  def unsubscribe(cluster), do: GenServer.call(Table.process(cluster), {:unsubscribe_leader, self()})

  @doc """
  Runs a function with the token while this node leads.

  It runs in a process of its own, which is killed when this node may no longer say that it leads; then the answer is
  `{:error, :lost}`. If the node does not lead nothing is run: `{:error, {:not_leader, node}}`, where `node` is who leads as
  far as this node knows, or `nil`. If the function fails the caller exits with its reason; if the caller ends the function is
  killed.
  """
  @spec with_leadership(Tiebeam.name(), (token -> result)) ::
          {:ok, result} | {:error, {:not_leader, node | nil} | :lost}
        when result: term
  def with_leadership(cluster, work) when is_function(work, 1) do
    guard = %{take: fn -> take(cluster) end, left: &left(cluster, &1), release: fn _term -> :ok end}
    Guard.run(cluster, guard, work)
  end

  defp take(cluster) do
    with {:ok, term} <- leader?(cluster),
         :ok <- GenServer.call(Table.process(cluster), {:guard_lease, term}) do
      {:ok, term}
    else
      _ -> {:error, {:not_leader, cluster |> Table.leader() |> elem(0)}}
    end
  end

  defp left(cluster, term) do
    case Table.lease(cluster) do
      {^term, until} ->
        left = until - System.monotonic_time(:microsecond)
        # Whole milliseconds, and never longer than it is good for.
        if left > 0, do: div(left, 1000), else: :lost

      _ ->
        :lost
    end
  end

  @doc """
  Hands leadership to another voter: to the one that is named, or to the one that has most of the log. Answers the new term
  once another node leads. This may be asked of any node; only the leader acts.

  Nothing that was acknowledged is lost. If the other does not take over in an election timeout the leader goes on, and the
  answer is an error.
  """
  @spec step_down(Tiebeam.name(), node | nil, keyword) ::
          {:ok, term :: token} | {:error, {:no_member, node} | {:refused, String.t()} | error}
  def step_down(cluster, to \\ nil, options \\ []) do
    to = to && Leadership.node!(to)
    change(cluster, {:step_down, to}, options)
  end

  @doc """
  Who votes and who follows, as the leader knows it, or else as this node does.

      iex> {:ok, [%{voter: true} = me]} = Tiebeam.Leader.members(MyApp.Cluster)
      iex> me.node == node()
      true
  """
  @spec members(Tiebeam.name(), keyword) :: {:ok, [member]} | {:error, error}
  def members(cluster, options \\ []) do
    case ask(cluster, :members, options) do
      {:members, members} -> {:ok, members}
      other -> Leadership.error(other)
    end
  end

  @doc """
  Makes a node a voter, once it has the log: it must run, and name voters or `:expect` itself. Answers when it votes.
  """
  @spec add_voter(Tiebeam.name(), node, keyword) ::
          :ok | {:error, {:no_member, node} | {:refused, String.t()} | error}
  def add_voter(cluster, node, options \\ []),
    do: done(cluster, {:add_voter, Leadership.node!(node)}, options)

  @doc """
  Makes a voter a follower. Answers when it does not vote any more.

  Voters that are merely dead are never removed by themselves. To replace one that will not come back, remove it and add
  another.
  """
  @spec remove_voter(Tiebeam.name(), node, keyword) ::
          :ok | {:error, {:no_member, node} | {:refused, String.t()} | error}
  def remove_voter(cluster, node, options \\ []),
    do: done(cluster, {:remove_voter, Leadership.node!(node)}, options)

  @doc """
  More than half of the voters are lost for good: this node founds the group anew with what it has, as its only voter. Needs
  the option `i_know: true`.

  What this node had not heard of is lost, though it may have been acknowledged. If the lost voters are alive after all there
  are two groups, with two leaders, which refuse each other. Run it on one node, and only when the others cannot come
  back: of several, the one on which a key that is written often has the greatest revision in a read with
  `consistency: :local`. Add voters again afterwards.
  """
  @spec force_new_cluster(Tiebeam.name(), keyword) :: :ok | {:error, {:refused, String.t()} | error}
  def force_new_cluster(cluster, options \\ []) do
    options = Leadership.options!(options, i_know: false, timeout: Leadership.timeout())

    unless options.i_know do
      raise ArgumentError,
            "force_new_cluster forgets what this node has not heard of, and makes two leaders if the other voters are alive. " <>
              "If they are lost for good: force_new_cluster(cluster, i_know: true)"
    end

    case Leadership.ask(cluster, :force_new_group, options.timeout) do
      {:done, _entry} -> :ok
      other -> Leadership.error(other)
    end
  end

  defp done(cluster, command, options) do
    with {:ok, _entry} <- change(cluster, command, options), do: :ok
  end

  defp change(cluster, command, options) do
    case ask(cluster, command, options) do
      {:done, number} -> {:ok, number}
      other -> Leadership.error(other)
    end
  end

  defp ask(cluster, command, options) do
    %{timeout: timeout} = Leadership.options!(options, timeout: Leadership.timeout())
    Leadership.ask(cluster, command, timeout)
  end
end
