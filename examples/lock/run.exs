# Shares a lock with the Rust node of main.rs.

bank = :"bank@127.0.0.1"
ledger = {:ledger, bank}

{:ok, _} = Tiebeam.start_link(name: Shop, join: [bank], voters: [bank])

{:ok, token} = Tiebeam.Lock.acquire(Shop, "till", timeout: 60_000)
IO.puts("app:   has the lock")

{:error, :held} = :rpc.call(bank, :till, :close, [])
IO.puts("bank:  does not get it meanwhile")

{:ok, lines} = GenServer.call(ledger, {:write, token, "sold an apple"})
:ok = Tiebeam.Lock.release(Shop, "till", token)
IO.puts("app:   wrote line #{lines}, and gave the lock back")

{:ok, lines} = :rpc.call(bank, :till, :close, [])
IO.puts("bank:  had the lock, and wrote line #{lines}")

# A process that was held up, and does not know that its lock was another one's meanwhile.
{:error, :stale} = GenServer.call(ledger, {:write, token, "sold a pear"})
IO.puts("app:   comes late, and is refused: its token is less")

# The usual way: the lock is given back when the function is done, and the function killed if the lock is lost.
{:ok, lines} =
  Tiebeam.Lock.with(Shop, "till", fn token ->
    {:ok, lines} = GenServer.call(ledger, {:write, token, "sold a pear"})
    lines
  end)

IO.puts("app:   had the lock, and wrote line #{lines}")
